"""Data to predict retained scores: cheap measures of every setting, and the scores that evaluated ones retain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.analysis.series import at_temperature
from pipeline.analysis.strata import split
from pipeline.evaluate.comparison import MEAN
from pipeline.tables.read import Tables
from pipeline.tables.replicates import over_replicates
from pipeline.tables.variants import DENSE, VARIANT

WHO = VARIANT
# Sets of columns of `features` that scores are predicted from. The first is the one to use: for unseen pruners, the
# first difference and the least confident positions were not found to improve it.
REPRESENTATIONS = "representations"
BASELINES: Mapping[str, tuple[str, ...]] = {
    "perplexity": ("perplexity",),
    "cosine": ("cosine",),
    "parameters": ("removed",),
}
PREDICTORS: Mapping[str, tuple[str, ...]] = {
    REPRESENTATIONS: ("kl", "kl_sure"),
    "KL alone": ("kl",),
    "first difference": ("parting",),
    "all measures": ("kl", "kl_sure", "kl_unsure", "parting"),
    **BASELINES,
}
MEASURED = tuple(dict.fromkeys(name for names in PREDICTORS.values() for name in names))
FEATURES = [*WHO, "family", *MEASURED]
TARGETS = [*WHO, "family", "task", "kind", "kept", "signal", "weight"]


def features(tables: Tables) -> pd.DataFrame:
    """Return the cheap measures of every setting, all 0 or more and 0 for the dense model; missing where not measured.

    Args:
        tables: the rows of one choice of settings, see `pipeline.tables.read`.

    Returns:
        `FEATURES`, one row per variant, the dense model first; ``family`` is the pruner.

        - ``kl``: KL(dense || pruned) of the final states on the dense model's own continuations, in nats per token:
          the mean over prompts of means over steps;
        - ``kl_sure``, ``kl_unsure``: the mean of KL over the fifth of positions where the dense model's entropy is
          lowest, and highest;
        - ``parting``: the rate per token at which the pruned model's own continuation leaves the dense model's: of
          first differences over the tokens up to them, where texts without a difference count with their length;
        - ``perplexity``: log of its ratio to the dense model's, on the first text that both have; 0 if it is below;
        - ``cosine``: mean 1 - cos of the final hidden states on the dense model's continuations;
        - ``removed``: fraction of the model's parameters that is dropped or zero.
    """
    parts = [_final_states(tables.measures), _parting(tables.trajectories), _perplexity(tables.scores)]
    parts.append(_removed(tables.jobs))
    there = [part for part in parts if len(part)]
    frame = pd.concat(there, axis=1) if there else pd.DataFrame(index=_index([]))
    frame = frame.reindex(columns=list(MEASURED)).astype(float)
    frame = frame[frame.index.get_level_values("pruner") != DENSE].sort_index()
    dense = pd.DataFrame(0.0, index=_index([(DENSE, "0", "")]), columns=frame.columns)
    frame = pd.concat([dense, frame]).rename_axis(index=WHO).reset_index()
    return frame.assign(family=frame["pruner"])[FEATURES]


def targets(tables: Tables) -> pd.DataFrame:
    """Return the fraction of each task's score above chance that every evaluated setting retains.

    Only tasks on which the dense model is clearly above chance count: the 95 % interval of its score lies above it.

    Returns:
        `TARGETS`, one row per variant, task and kind. ``kept`` is (pruned - chance) / (dense - chance), which is not
        clipped to 0 to 1; ``signal`` is dense - chance, the weight of a task in the mean of its kind: with it, the mean
        of the retained fractions is the fraction retained of the mean; ``weight`` is n signal², to which the variance
        of ``kept`` is inversely proportional if all items vary alike.
    """
    rows = tables.comparisons
    if rows.empty:
        return pd.DataFrame({name: pd.Series(dtype=float if name in TARGETS[6:] else str) for name in TARGETS})
    rows = rows[(rows["task"] != MEAN) & (rows["pruner"] != DENSE)]
    numbers = rows[["dense", "pruned", "dense_low", "chance", "n"]].astype(float)
    rows = rows[(numbers["dense_low"] > numbers["chance"]) & np.isfinite(numbers).all(axis=1)]
    signal = rows["dense"] - rows["chance"]
    kept = (rows["pruned"] - rows["chance"]) / signal
    found = rows.assign(family=rows["pruner"], kept=kept, signal=signal, weight=rows["n"] * signal**2)
    return found[TARGETS].reset_index(drop=True)


def kind_means(rows: pd.DataFrame, values: list[str]) -> pd.DataFrame:
    """Compute rows of the task "mean": per setting and kind, the mean of ``values`` over tasks, weighted by signal.

    Args:
        rows: pruner, sparsity, options, kind, signal and the values, one row per task.
    """
    scaled = rows[[*WHO, "kind", "signal"]].assign(**{name: rows[name] * rows["signal"] for name in values})
    sums = scaled.groupby([*WHO, "kind"], sort=False)[["signal", *values]].sum(min_count=1).reset_index()
    means = {name: sums[name] / sums["signal"] for name in values}
    return sums[[*WHO, "kind"]].assign(task=MEAN, **means)


def _final_states(measures: pd.DataFrame) -> pd.DataFrame:
    rows = measures[measures["protocol"] == "teacher_forced"] if len(measures) else measures
    if rows.empty:
        return pd.DataFrame()
    rows, _ = at_temperature(rows)
    found = {}
    for setting, own in rows.groupby(WHO):
        kl, entropy = own["kl"].to_numpy(dtype=float), own["entropy"].to_numpy(dtype=float)
        sure = unsure = np.nan
        if np.isfinite(entropy).all():
            # The dense model's entropy does not depend on the pruned model, and neither do the strata.
            strata, _ = split(entropy, -1)
            sure, unsure = kl[strata == strata.max()].mean(), kl[strata == strata.min()].mean()
        # Every prompt counts alike, however long its text; missing values stay missing.
        means = own.groupby("prompt")[["kl", "cos_h"]].mean(skipna=False).mean(skipna=False)
        cosine = np.maximum(0.0, 1 - means["cos_h"])
        found[setting] = {"kl": means["kl"], "kl_sure": sure, "kl_unsure": unsure, "cosine": cosine}
    return _table(found)


def _parting(trajectories: pd.DataFrame) -> pd.DataFrame:
    if trajectories.empty:
        return pd.DataFrame()
    found = {}
    for setting, own in trajectories.groupby(WHO):
        differs = own["dense_token"] != own["pruned_token"]
        first = own["step"].where(differs).groupby(own["prompt"]).min()
        length = own.groupby("prompt")["step"].max() + 1
        # The steps at which a text could part, up to the one at which it did. Half a text is added to keep the rate
        # above 0 where no text parted, however few there are.
        steps = float((first + 1).fillna(length).sum())
        found[setting] = {"parting": (first.notna().sum() + 0.5) / (steps + 0.5)}
    return _table(found)


def _perplexity(scores: pd.DataFrame) -> pd.DataFrame:
    rows = scores[scores["kind"] == "perplexity"] if len(scores) else scores
    if rows.empty:
        return pd.DataFrame()
    rows = over_replicates(rows, ["task"], "value")
    dense = rows[rows["pruner"] == DENSE].drop_duplicates("task").set_index("task")["value"].astype(float)
    own = rows[(rows["pruner"] != DENSE) & rows["task"].isin(dense.index)]
    own = own.assign(place=own["task"].map(dict(zip(dense.index, range(len(dense)), strict=True))))
    own = own.sort_values("place", kind="stable").drop_duplicates(WHO).set_index(WHO)
    ratio = own["value"].astype(float) / own["task"].map(dense)
    return pd.DataFrame({"perplexity": np.log(ratio).clip(lower=0)})


def _removed(jobs: pd.DataFrame) -> pd.DataFrame:
    known = jobs.dropna(subset=["parameters", "dense_parameters"]) if len(jobs) else jobs
    if known.empty:
        return pd.DataFrame()
    last = known.drop_duplicates(WHO, keep="last").set_index(WHO)
    return pd.DataFrame({"removed": 1 - last["parameters"].astype(float) / last["dense_parameters"].astype(float)})


def _table(found: dict[tuple[str, ...], dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame(list(found.values()), index=_index(list(found)))


def _index(settings: list[tuple[str, ...]]) -> pd.MultiIndex:
    return (
        pd.MultiIndex.from_tuples(settings, names=WHO)
        if settings
        else pd.MultiIndex.from_arrays([[], [], []], names=WHO)
    )
