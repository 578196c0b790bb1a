"""The shipped items for lm-eval; the task files name this module's function by `custom_dataset: !function`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.data.matched.suite import items_file

if TYPE_CHECKING:
    from datasets import DatasetDict


def read_items(family: str) -> list[dict]:
    """Return the family's shipped rows in file order: few-shot examples first, then test items.

    A row has `id`, `split` ("fewshot" or "test"), `prompt`, `answer`, `choices` (four strings) and `label`,
    the index of the answer in `choices`.
    """
    path = items_file(family)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: generate it with `python -m pipeline.data.matched.generate`.")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def load_family(family: str, **_metadata: object) -> DatasetDict:
    """Load the family's items as lm-eval wants them, with the splits `fewshot` and `test`, wholly in memory.

    lm-eval passes the task's `metadata` (its version, and whatever a TaskManager adds) as further keywords.
    """
    from datasets import Dataset, DatasetDict

    rows = read_items(family)
    return DatasetDict(
        {split: Dataset.from_list([row for row in rows if row["split"] == split]) for split in ("fewshot", "test")}
    )
