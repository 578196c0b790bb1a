"""Repetitions of a variant under other seeds or draws: kept apart where positions are pooled, averaged where scored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.evaluate.comparison import verdict_of
from pipeline.evaluate.intervals import Interval, half_width_of_mean, normal_p, wilson
from pipeline.tables.variants import VARIANT, variants_of

REPLICATE, COUNT = "replicate", "replicates"
# The method of a comparison that is the mean of several.
METHOD = "replicates"
_LIMITED = ("dense", "pruned", "difference")


def name_replicates(jobs: pd.DataFrame) -> dict[str, str]:
    """Return for each job what it is called among the repetitions of its variant: "" for the only one, else its seed.

    Args:
        jobs: job, variant_id, seed, pruner_draw; one row a job.
    """
    names: dict[str, str] = {}
    for _, own in jobs.groupby("variant_id", sort=False):
        several, draws = len(own) > 1, own["pruner_draw"].nunique() > 1
        seeds = own["seed"].nunique() > 1
        texts = [
            ", ".join(
                [*([f"seed {row.seed}"] if seeds or not draws else []), *([f"draw {row.pruner_draw}"] if draws else [])]
            )
            for row in own.itertuples()
        ]
        twice = len(set(texts)) < len(texts)
        for row, text in zip(own.itertuples(), texts, strict=True):
            names[str(row.job)] = (f"{text} #{row.job[:4]}" if twice else text) if several else ""
    return names


def tell_prompts_apart(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with their prompt as ``probe``, and prompts of repetitions called after both.

    What is pooled over prompts is then pooled over repetitions too, and no two texts of one prompt are mixed.
    """
    if "prompt" not in frame:
        return frame
    named = frame["prompt"] + (" (" + frame[REPLICATE] + ")").where(frame[REPLICATE] != "", "")
    return frame.assign(probe=frame["prompt"], prompt=named)


def first_replicates(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the first repetition of every variant, under the prompts' own names: for texts to read."""
    if frame.empty:
        return frame
    firsts = frame.groupby(VARIANT)[REPLICATE].transform("min")
    own = frame[frame[REPLICATE] == firsts]
    return own.assign(prompt=own["probe"])


def notes_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return a sentence that says of which variants there are repetitions, and how many."""
    if frame.empty:
        return ()
    counts = frame.groupby(VARIANT)[REPLICATE].nunique()
    several = counts[counts > 1]
    if several.empty:
        return ()
    by_count = {int(count): several[several == count] for count in sorted(set(several))}
    parts = []
    for count, own in by_count.items():
        names = [v.label for v in variants_of(own.reset_index())]
        parts.append(f"{', '.join(names)}: {count} seeds or draws")
    return (f"Repeated: {'; '.join(parts)}; scores are their mean, positions of all are pooled.",)


def average_comparisons(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a variant, kind and task: the mean of its repetitions, whose number is ``replicates``.

    An interval's half-width joins those of the single ones (the items are the same, so that repeating does not make
    it smaller) with Student's interval of the mean over the repetitions.
    """
    if frame.empty:
        return frame.assign(**{COUNT: pd.Series(dtype=int)})
    parts = [
        own.head(1).assign(**{COUNT: 1}) if len(own) == 1 else _averaged(own)
        for _, own in frame.groupby([*VARIANT, "kind", "task"], sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def _averaged(own: pd.DataFrame) -> pd.DataFrame:
    found = {name: mean_interval(own[list(_columns(name))].to_numpy(dtype=float)) for name in _LIMITED}
    values = {column: value for name in _LIMITED for column, value in zip(_columns(name), found[name], strict=True)}
    retained = own[["retained", "retained_low", "retained_high"]].to_numpy(dtype=float)
    kept = mean_interval(retained) if np.isfinite(retained).all() else Interval(math.nan, math.nan, math.nan)
    values |= dict(zip(("retained", "retained_low", "retained_high"), kept, strict=True))
    n, chance = int(own["n"].min()), float(own["chance"].mean())
    verdict = verdict_of(found["difference"], found["dense"], chance, wilson(n, n).low)
    about = {"n": n, "chance": chance, "p": normal_p(found["difference"]), "method": METHOD, COUNT: len(own)}
    return own.head(1).assign(**values, **about, verdict=verdict)


def mean_interval(intervals: np.ndarray) -> Interval:
    """Return the mean of (k, 3) values with their limits, k > 1, and its interval, see ``average_comparisons``."""
    value = float(intervals[:, 0].mean())
    spread = half_width_of_mean(intervals[:, 0].tolist())
    below, above = (np.abs(intervals[:, place] - intervals[:, 0]).mean() for place in (1, 2))
    return Interval(value, value - math.hypot(below, spread), value + math.hypot(above, spread))


def _columns(name: str) -> tuple[str, str, str]:
    return (name, "low", "high") if name == "difference" else (name, f"{name}_low", f"{name}_high")


def over_replicates(frame: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Return the mean of a value over the repetitions of each variant and ``keys``, with ``spread`` and ``replicates``.

    ``spread`` is the standard deviation among them (n - 1), missing for one alone. Other columns are the first's.
    """
    by = [*VARIANT, *keys]
    groups = frame.groupby(by, sort=False)[value]
    first = frame.drop_duplicates(by).set_index(by)
    return first.assign(**{value: groups.mean(), "spread": groups.std(ddof=1), COUNT: groups.size()}).reset_index()
