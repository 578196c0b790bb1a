"""Results of an evaluation: scores of tasks, scores of their items, and the texts behind them."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.store.table_names import ITEMS, SCORES

SAMPLES = "samples.jsonl.gz"
# lm-eval's own account: a line of results, then its samples. Results of an earlier version lack it.
LM_EVAL = "lm_eval.jsonl.gz"
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
    "close",
    "data",
]
# Fidelity of an item: numbers that are missing where they do not apply.
FIDELITY_COLUMNS = ["choice", "gold_rank", "gold_p", "tokens", "truncated", "repetition"]
ITEM_COLUMNS = ["task", "kind", "item", "score", *FIDELITY_COLUMNS]


@dataclass
class Results:
    """Results of one model on a task suite.

    Attributes:
        scores: one row per task and metric: task, kind, metric, main (whether it is the task's main metric), value,
            stderr, n (items), shots, higher_is_better, averaged (whether it counts in means over tasks: the main
            metric, from 0 to 1, higher is better), chance (the score of guessing), left_out (unusable rows), close
            (items whose chosen option may be another one by the dtype's rounding), data (8 hexadecimal digits of the
            rows that were asked). Empty if answers were not scored.
        items: one row per item: task, kind, item, score (of the main metric), and `FIDELITY_COLUMNS`: choice (number
            of the option that the metric takes), gold_rank and gold_p (of the gold option among the options, or of the
            first gold token that differs from a generated answer), tokens, truncated and repetition of a generated
            text. Empty if answers were not scored.
        samples: one row per item: task, kind, item, prompt, completion, gold, score, and further details for a reader.
        lm_eval: JSON texts of what lm-eval writes, made while they are read, once: `pipeline.evaluate.lm_eval_log`.
    """

    scores: pd.DataFrame
    items: pd.DataFrame
    samples: Sequence[dict[str, Any]]
    lm_eval: Iterable[str] | None = None

    def __repr__(self) -> str:
        return repr(self.scores)

    def _repr_html_(self) -> str | None:
        return self.scores._repr_html_()

    def save(self, folder: Path) -> None:
        """Write the results to a folder; without the tables if answers were not scored."""
        if len(self.scores):
            self.scores.to_parquet(folder / SCORES, index=False)
            self.items.to_parquet(folder / ITEMS, index=False)
        _write_lines(folder / SAMPLES, (json.dumps(one, ensure_ascii=False, default=str) for one in self.samples))
        if self.lm_eval is not None:
            _write_lines(folder / LM_EVAL, self.lm_eval)


def items_of(samples: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the items, `ITEM_COLUMNS`, of samples that have a score."""
    rows = [{name: sample.get(name) for name in ITEM_COLUMNS} for sample in samples if sample["score"] is not None]
    return pd.DataFrame(rows, columns=ITEM_COLUMNS).astype(dict.fromkeys(["score", *FIDELITY_COLUMNS], float))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    # Without a name and a time stamp, equal lines give equal bytes.
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
        for line in lines:
            stream.write(f"{line}\n".encode(errors="replace"))


def rows_digest(rows: object) -> str:
    """Return 8 hexadecimal digits that identify rows of data."""
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]


def _plain(value: object) -> object:
    """Return a text for a value that JSON cannot represent, without the memory address that some objects show."""
    return value.hex() if isinstance(value, bytes) else re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


def read_samples(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of saved results, in order."""
    return read_lines(folder / SAMPLES)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a compressed file of saved results, in order."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)
