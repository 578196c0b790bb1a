"""Replicates of a variant under other seeds or draws: kept apart where positions are pooled, averaged where scored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.evaluate.comparison import verdict_of
from pipeline.evaluate.intervals import DIFFERENCES, SCORES, Interval, half_width_of_mean, normal_p, wilson
from pipeline.tables.variants import VARIANT, variants_of

REPLICATE, COUNT = "replicate", "replicates"
# Method of a comparison that is the mean over several replicates.
METHOD = "replicates"
# Numbers with an interval, and the smallest and largest that they may be.
_SCALES = {"dense": SCORES, "pruned": SCORES, "difference": DIFFERENCES}
# Columns that number the replicates of a variant, and what a name calls them.
_NUMBERED = {"seed": "seed", "pruner_draw": "draw", "calibration_draw": "text", "calibration_seed": "text of seed"}


def name_replicates(jobs: pd.DataFrame) -> dict[str, str]:
    """Return the name of each job among the replicates of its variant: "" for a single one, else its seed or draws.

    Args:
        jobs: job, variant_id and the columns of `_NUMBERED`; one row per job.
    """
    names: dict[str, str] = {}
    for _, own in jobs.groupby("variant_id", sort=False):
        own_seed = own["calibration_seed"].isna() | (own["calibration_seed"] == own["seed"])
        numbered = [name for name in _NUMBERED if name != "calibration_seed" or not own_seed.all()]
        differ = [name for name in numbered if own[name].nunique() > 1] or ["seed"]
        texts = [
            ", ".join(f"{_NUMBERED[name]} {number:.0f}" for name, number in zip(differ, numbers, strict=True))
            for numbers in own[differ].itertuples(index=False)
        ]
        twice, several = len(set(texts)) < len(texts), len(own) > 1
        for job, text in zip(own["job"], texts, strict=True):
            names[str(job)] = (f"{text} #{job[:4]}" if twice else text) if several else ""
    return names


def tell_prompts_apart(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with their prompt as ``probe``, and with the replicate added to the name in ``prompt``.

    Statistics over prompts then pool replicates as well, and no two texts of one prompt are mixed.
    """
    if "prompt" not in frame:
        return frame
    named = frame["prompt"] + (" (" + frame[REPLICATE] + ")").where(frame[REPLICATE] != "", "")
    return frame.assign(probe=frame["prompt"], prompt=named)


def first_replicates(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the first replicate of every variant, under the prompts' own names, for texts to read."""
    if frame.empty:
        return frame
    firsts = frame.groupby(VARIANT)[REPLICATE].transform("min")
    own = frame[frame[REPLICATE] == firsts]
    return own.assign(prompt=own["probe"])


def notes_of(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return a caption sentence that names the variants with replicates, and how many; empty if there are none."""
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
    return (f"Repeated: {'; '.join(parts)}; scores are means over them; their positions are pooled.",)


def average_comparisons(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant, kind and task: the mean over its replicates, whose number is ``replicates``.

    The half-width of an interval is the root of the summed squares of two: the mean half-width of the replicates' own
    intervals (the items are the same, hence repeating does not reduce it), and that of Student's interval of the mean
    over the replicates. Intervals of scores and differences stay on their scale.
    """
    if frame.empty:
        return frame.assign(**{COUNT: pd.Series(dtype=int)})
    parts = [
        own.head(1).assign(**{COUNT: 1}) if len(own) == 1 else _averaged(own)
        for _, own in frame.groupby([*VARIANT, "kind", "task"], sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def _averaged(own: pd.DataFrame) -> pd.DataFrame:
    found = {name: mean_interval(own[list(_columns(name))].to_numpy(float), scale) for name, scale in _SCALES.items()}
    values = {column: value for name in _SCALES for column, value in zip(_columns(name), found[name], strict=True)}
    retained = own[["retained", "retained_low", "retained_high"]].to_numpy(dtype=float)
    kept = mean_interval(retained) if np.isfinite(retained).all() else Interval(math.nan, math.nan, math.nan)
    values |= dict(zip(("retained", "retained_low", "retained_high"), kept, strict=True))
    n, chance = int(own["n"].min()), float(own["chance"].mean())
    verdict = verdict_of(found["difference"], found["dense"], chance, wilson(n, n).low)
    about = {"n": n, "chance": chance, "p": normal_p(found["difference"]), "method": METHOD, COUNT: len(own)}
    return own.head(1).assign(**values, **about, verdict=verdict)


def mean_interval(intervals: np.ndarray, scale: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Return the mean of (k, 3) values with their limits, k > 1, with its interval, see ``average_comparisons``.

    ``scale`` is the smallest and largest possible value; the interval stays inside.
    """
    value = float(intervals[:, 0].mean())
    spread = half_width_of_mean(intervals[:, 0].tolist())
    below, above = (np.abs(intervals[:, place] - intervals[:, 0]).mean() for place in (1, 2))
    low, high = value - math.hypot(below, spread), value + math.hypot(above, spread)
    return Interval(value, max(scale[0], low), min(scale[1], high))


def _columns(name: str) -> tuple[str, str, str]:
    return (name, "low", "high") if name == "difference" else (name, f"{name}_low", f"{name}_high")


def over_replicates(frame: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Return the mean of a value over the replicates of each variant and ``keys``, with ``spread`` and ``replicates``.

    ``spread`` is their standard deviation (n - 1), missing for a single one. Other columns are those of the first.
    """
    by = [*VARIANT, *keys]
    groups = frame.groupby(by, sort=False)[value]
    first = frame.drop_duplicates(by).set_index(by)
    return first.assign(**{value: groups.mean(), "spread": groups.std(ddof=1), COUNT: groups.size()}).reset_index()
