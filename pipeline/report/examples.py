"""Items that the dense model solves and pruning breaks, with the answers of all variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from pipeline.evaluate.results import read_samples
from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord
from pipeline.tables.read import Tables
from pipeline.tables.replicates import REPLICATE
from pipeline.tables.variants import DENSE, Variant, rows_of, variants_of

GENERATED, CHOSEN = "generative", "multiple_choice"
SOLVED, BROKEN = 1.0, 0.5  # scores of an item: at least the one, less than the other
MOST = 3  # examples, each of another task
LONGEST = 700  # characters of a prompt or an answer that are shown


Key = tuple[str, int]  # task and item
Scores = dict[Variant, dict[Key, float]]
Texts = dict[Variant, dict[Key, dict[str, Any]]]


@dataclass(frozen=True)
class Reply:
    """The answer of one variant, its score, and whether the variant chooses the right option of the same item.

    `chosen` is None where the item was not asked as multiple choice.
    """

    label: str
    text: str
    score: float
    chosen: bool | None

    @property
    def verdict(self) -> str:
        """Word for the score."""
        return "right" if self.score >= SOLVED else "wrong" if self.score < BROKEN else "partly right"


@dataclass(frozen=True)
class Example:
    """An item with its prompt, the right answer, and the replies, dense first."""

    task: str
    item: int
    prompt: str
    gold: str
    replies: tuple[Reply, ...]


def examples(tables: Tables, records: Sequence[JobRecord], store: Store) -> list[Example]:
    """Return items of generation that dense solves and some variant breaks, at most one of a task.

    Those come first in which most variants do what they usually do: solve the item if they solve at least half of what
    dense solves, break it if not. Empty where the texts are not in the store.
    """
    if tables.items.empty:
        return []
    scores, choices = (_scores(tables.items, kind) for kind in (GENERATED, CHOSEN))
    wanted = _typical(scores)
    texts = _texts(tables, records, store, set(wanted))
    whole = [key for key in wanted if all(key in texts.get(variant, {}) for variant in scores)]
    return [_example(key, scores, choices, texts) for key in whole[:MOST]]


def _scores(items: pd.DataFrame, kind: str) -> Scores:
    """Return the scores of the items of a kind for every variant, dense first; of replicates those of the first."""
    rows = items[items["kind"] == kind]
    found: Scores = {}
    for variant in sorted(variants_of(rows), key=lambda own: own.pruner != DENSE):
        own = rows_of(rows, [variant])
        own = own[own[REPLICATE] == own[REPLICATE].min()]
        found[variant] = {(row.task, int(row.item)): float(row.score) for row in own.itertuples()}
    return found


def _typical(scores: Scores) -> list[Key]:
    """Return the best example of each task, the best first."""
    dense = next((own for variant, own in scores.items() if variant.pruner == DENSE), {})
    pruned = [own for variant, own in scores.items() if variant.pruner != DENSE]
    solved = [key for key, score in dense.items() if score >= SOLVED and all(key in own for own in pruned)]
    if not solved or not pruned:
        return []
    usual = [fmean(own[key] for key in solved) >= BROKEN for own in pruned]
    broken = [key for key in solved if any(own[key] < BROKEN for own in pruned)]

    def unlike(key: Key) -> int:
        return sum((own[key] >= BROKEN) != right for own, right in zip(pruned, usual, strict=True))

    best: dict[str, Key] = {}
    for key in sorted(broken, key=unlike):
        best.setdefault(key[0], key)
    return list(best.values())


def _texts(tables: Tables, records: Sequence[JobRecord], store: Store, wanted: set[Key]) -> Texts:
    """Return the samples of these items by variant; of replicates those of the first."""
    places = {record.job: record.artifacts.get("evaluation") for record in records}
    found: Texts = {}
    for row in tables.jobs.sort_values(REPLICATE, kind="stable").itertuples() if wanted else ():
        variant = Variant(row.pruner, row.sparsity, row.options)
        place = places.get(row.job)
        folder = store.root / (place or "")
        if variant in found or place is None or not folder.is_dir() or store.problem(folder):
            continue
        samples = (sample for sample in read_samples(folder) if sample["kind"] == GENERATED)
        found[variant] = {key: one for one in samples if (key := (one["task"], one["item"])) in wanted}
    return found


def _example(key: Key, scores: Scores, choices: Scores, texts: Texts) -> Example:
    replies = []
    for variant, own in scores.items():
        choice = choices.get(variant, {}).get(key)
        label = DENSE if variant.pruner == DENSE else variant.label
        text = _cut(str(texts[variant][key]["completion"]).strip())
        replies.append(Reply(label, text, own[key], None if choice is None else choice >= SOLVED))
    sample = next(iter(texts.values()))[key]
    gold = sample["gold"]
    right = " or ".join(map(str, gold)) if isinstance(gold, list) else str(gold)
    return Example(*key, _end(str(sample["prompt"])), right, tuple(replies))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} \u2026"


def _end(prompt: str) -> str:
    """Return the end of a prompt, which holds the question, from the beginning of a line."""
    if len(prompt) <= LONGEST:
        return prompt
    end = prompt[-LONGEST:]
    return f"\u2026\n{end.partition(chr(10))[2] or end}"
