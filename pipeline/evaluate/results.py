"""Results of an evaluation: scores of tasks, scores of their items, and the texts behind them."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.store.table_names import ITEMS, SCORES

SAMPLES = "samples.jsonl.gz"
SCORE_COLUMNS = [
    "task",
    "kind",
    "metric",
    "main",
    "value",
    "stderr",
    "n",
    "shots",
    "higher_is_better",
    "averaged",
    "chance",
    "left_out",
    "data",
]
ITEM_COLUMNS = ["task", "kind", "item", "score"]


@dataclass
class Results:
    """Results of one model on a task suite.

    Attributes:
        scores: one row per task and metric: task, kind, metric, main (whether it is the task's main metric), value,
            stderr, n (items), shots, higher_is_better, averaged (whether it counts in means over tasks: the main
            metric, from 0 to 1, higher is better), chance (the score of guessing), left_out (unusable rows), data (8
            hexadecimal digits of the rows that were asked).
        items: one row per item: task, kind, item, score (of the main metric).
        samples: one row per item: task, kind, item, prompt, completion, gold, score, and further details for a reader.
    """

    scores: pd.DataFrame
    items: pd.DataFrame
    samples: Sequence[dict[str, Any]]

    def __repr__(self) -> str:
        return repr(self.scores)

    def _repr_html_(self) -> str | None:
        return self.scores._repr_html_()

    def save(self, folder: Path) -> None:
        self.scores.to_parquet(folder / SCORES, index=False)
        self.items.to_parquet(folder / ITEMS, index=False)
        lines = "".join(json.dumps(sample, ensure_ascii=False, default=str) + "\n" for sample in self.samples)
        # Without a time stamp, equal samples give equal bytes.
        (folder / SAMPLES).write_bytes(gzip.compress(lines.encode(), mtime=0))


def rows_digest(rows: object) -> str:
    """Return 8 hexadecimal digits that identify rows of data."""
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]


def _plain(value: object) -> object:
    """Return a text for a value that JSON cannot represent, without the memory address that some objects show."""
    return value.hex() if isinstance(value, bytes) else re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


def read_samples(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of saved results, in order."""
    with gzip.open(folder / SAMPLES, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)
