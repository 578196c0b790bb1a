"""lm-eval's own definitions with their data taken from installed packages; nothing else about them changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.evaluate.suites.offline.rows import examples, rows
from pipeline.evaluate.suites.offline.sources import SOURCES

if TYPE_CHECKING:
    from datasets import DatasetDict

# Items come from `test`; lm-eval keeps an item out of its own examples only where they come from `test` too.
TEST, EXAMPLES = "test", "examples"


def task_name(name: str) -> str:
    """Return the benchmark's name in lm-eval, where ``name`` alone is the task whose data comes from the hub."""
    return f"offline_{name}"


def definition(name: str) -> dict[str, Any]:
    """Return a whole configuration for ``lm_eval.tasks.TaskManager.load``.

    Loading HumanEval's imports lm-eval's code for it, which loads the metric ``code_eval``.
    Raises ValueError if a package is not installed.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    source = SOURCES[name]
    own = load_yaml(source.definition_path())
    if source.enough:
        own |= {"generation_kwargs": own["generation_kwargs"] | {"max_gen_toks": source.enough}}
    return own | {
        "task": task_name(name),
        "dataset_path": None,
        "dataset_name": None,
        "custom_dataset": load,
        "dataset_kwargs": {"benchmark": name},
        "training_split": None,
        "validation_split": None,
        "test_split": TEST,
        "fewshot_split": EXAMPLES if source.examples else TEST,
    }


def load(benchmark: str, **_metadata: object) -> DatasetDict:
    """Load a benchmark's rows for lm-eval, wholly in memory; lm-eval passes its ``metadata`` as further keywords."""
    from datasets import Dataset, DatasetDict

    splits = {TEST: rows(benchmark)}
    if SOURCES[benchmark].examples:
        splits[EXAMPLES] = examples(benchmark)
    return DatasetDict({split: Dataset.from_list(content) for split, content in splits.items()})
