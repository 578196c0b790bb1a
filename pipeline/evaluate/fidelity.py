"""Fidelity of a pruned model to the dense one, item by item: what flips, where the gold answer stands, what is written.

An item that dense answers rightly and pruned wrongly is lost. Its answer is demoted where the gold token (or option) is
still high in the pruned model's distribution, and erased where it is not.
"""

from __future__ import annotations

import math

import pandas as pd

from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.suite import GENERATIVE, MULTIPLE_CHOICE

# Ranks up to which a gold token counts as still high, and as still in reach.
HIGH, IN_REACH = 5, 50
_KEYS = ["kind", "task", "item"]
_OTHER = {GENERATIVE: MULTIPLE_CHOICE, MULTIPLE_CHOICE: GENERATIVE}
_COUNTS = [
    "n",
    "dense_right",
    "lost",
    "gained",
    "lost_ranked",
    f"lost_within_{HIGH}",
    f"lost_within_{IN_REACH}",
    "lost_twins",
    "lost_twins_right",
]
# Means over items; the median of ranks, which have a long tail.
_BOTH = {"gold_rank": "median", "gold_p": "mean", "tokens": "mean", "truncated": "mean", "repetition": "mean"}
COLUMNS = [
    "task",
    "kind",
    *_COUNTS,
    "choice_changed",
    *(f"{name}_{whose}" for name in _BOTH for whose in ("dense", "pruned")),
]


def fidelity(dense_items: pd.DataFrame, pruned_items: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Compare the answers of two models to the items of generation and multiple choice that both were scored on.

    Args:
        dense_items, pruned_items: `pipeline.evaluate.results.ITEM_COLUMNS`, one row an item.
        scores: one row per task and metric: task, kind, main, higher_is_better.

    Returns:
        `COLUMNS`, one row a task and one of the task "mean" for each kind, whose counts are sums over the tasks with
        right and wrong answers, and whose other columns are means over tasks. An item is right with a score of 1 by a
        metric of which more is better; other tasks have no counts but ``n``. ``choice_changed`` is the share of items
        of which another option is chosen. ``lost_ranked`` counts lost items whose gold token or option has a rank in
        the pruned model, ``lost_within_5`` and ``lost_within_50`` those with at most that rank. ``lost_twins`` counts
        lost items that were asked in the other form as well, ``lost_twins_right`` those that the pruned model gets
        right there.
    """
    both = _paired(dense_items, pruned_items)
    main = scores[scores["main"].astype(bool)].drop_duplicates(["kind", "task"]).set_index(["kind", "task"])
    more = main["higher_is_better"].astype(bool).to_dict()
    rows = [
        _row(str(kind), str(task), own, more.get((kind, task), True))
        for (kind, task), own in both.groupby(["kind", "task"], sort=False)
    ]
    tasks = pd.DataFrame(rows, columns=COLUMNS)
    means = [_mean(str(kind), own) for kind, own in tasks.groupby("kind", sort=False)]
    return pd.DataFrame([*rows, *means], columns=COLUMNS)


def _paired(dense_items: pd.DataFrame, pruned_items: pd.DataFrame) -> pd.DataFrame:
    """Return one row an item that both models have a score for, with the pruned model's score of its twin."""
    kinds = dense_items["kind"].isin(_OTHER)
    both = dense_items[kinds].merge(pruned_items, on=_KEYS, suffixes=("_dense", "_pruned"))
    both = both.dropna(subset=["score_dense", "score_pruned"])
    twins = both[[*_KEYS, "score_pruned"]].rename(columns={"score_pruned": "twin"})
    twins["kind"] = twins["kind"].map(_OTHER)
    return both.merge(twins, on=_KEYS, how="left")


def _row(kind: str, task: str, own: pd.DataFrame, more: bool) -> dict[str, object]:
    scores = own[["score_dense", "score_pruned"]]
    # Scores on another scale, such as BLEU, and rates of errors say nothing about right and wrong.
    graded = not more or bool(((scores < 0) | (scores > 1)).to_numpy().any())
    right, still = own["score_dense"] >= 1, own["score_pruned"] >= 1
    lost = own[right & ~still]
    ranks, twins = lost["gold_rank_pruned"].dropna(), lost["twin"].dropna()
    counts = [
        len(own),
        right.sum(),
        len(lost),
        (still & ~right).sum(),
        len(ranks),
        (ranks <= HIGH).sum(),
        (ranks <= IN_REACH).sum(),
        len(twins),
        (twins >= 1).sum(),
    ]
    known = {
        name: math.nan if graded and name != "n" else float(count) for name, count in zip(_COUNTS, counts, strict=True)
    }
    chosen = own[["choice_dense", "choice_pruned"]].dropna()
    switched = (chosen["choice_dense"] != chosen["choice_pruned"]).mean()
    values = {
        f"{name}_{whose}": own[f"{name}_{whose}"].agg(how)
        for name, how in _BOTH.items()
        for whose in ("dense", "pruned")
    }
    return {"task": task, "kind": kind, **known, "choice_changed": switched, **values}


def _mean(kind: str, own: pd.DataFrame) -> dict[str, object]:
    means = own.drop(columns=["task", "kind", *_COUNTS]).mean()
    counted = own[own["dense_right"].notna()]
    counts = (own if counted.empty else counted)[_COUNTS].sum(min_count=1)
    return {"task": MEAN, "kind": kind, **counts, **means}
