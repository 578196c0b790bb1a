"""Accuracy of each set of measures in predicting what unseen pruners retain: errors and rank correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from pipeline.analysis.bootstrap import expanded
from pipeline.analysis.prediction import TooLittle, cross_validate, enough, joined
from pipeline.analysis.prediction_data import PREDICTORS, WHO
from pipeline.evaluate.comparison import MEAN

RESAMPLES = 1000
STATISTICS = ("error", "rank", "more")
ACCURACY = [
    *("predictor", "kind", "pruners", "settings"),
    *(f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high")),
    *("task_error", "task_rank"),
]


def compete(
    features: pd.DataFrame, targets: pd.DataFrame, predictors: Mapping[str, Sequence[str]] = PREDICTORS
) -> pd.DataFrame:
    """Predict every evaluated setting from those of the other pruners with every predictor, see `cross_validate`.

    For each kind of task, all predictors are fitted and tested on the same settings: those that have the columns of
    all. Predictors that would leave too few settings, such as one that was not measured, do not take part.

    Returns:
        The columns of `cross_validate` and ``predictor``.

    Raises:
        TooLittle: if there are too few settings of every kind for the first predictor.
    """
    parts, reasons = [], []
    for _, own in targets.groupby("kind", sort=False):
        try:
            parts.append(_compete(features, own, predictors))
        except TooLittle as reason:
            reasons.append(reason)
    if not parts:
        raise reasons[0] if reasons else TooLittle("the dense model solves none of the evaluated tasks")
    return pd.concat(parts, ignore_index=True)


def _compete(features: pd.DataFrame, targets: pd.DataFrame, predictors: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Predict the targets of one kind of task with every predictor, see `compete`."""
    taking_part: dict[str, Sequence[str]] = {}
    shared = targets
    for name, columns in predictors.items():
        try:
            shared = enough(joined(features, shared, columns))[targets.columns]
        except TooLittle:
            if not taking_part:
                raise
            continue
        taking_part[name] = columns
    parts = [cross_validate(features, shared, columns).assign(predictor=name) for name, columns in taking_part.items()]
    return pd.concat(parts, ignore_index=True)


def accuracy(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean absolute error and Spearman's rank correlation of each predictor, with intervals.

    Args:
        rows: the result of `compete`.

    Returns:
        `ACCURACY`, one row per predictor and kind, of the means over the tasks of a kind, one value per setting; kinds
        for which no unseen pruner could be predicted are left out. ``error`` is the mean of |kept - predicted|;
        ``rank`` is the correlation of both, missing where either is constant; ``more`` is the error minus that of the
        first predictor, above 0 where measures of representations are better. Each has a 95 % bootstrap interval over
        pruners (families), expanded since they are few (`expanded`) and missing for a single one, from resamples
        shared by all predictors. ``task_error`` and ``task_rank`` are the same statistics of single tasks.

    Raises:
        TooLittle: if no kind has a task that several pruners were evaluated on.
    """
    means = rows["task"] == MEAN
    found = []
    for kind in rows["kind"].unique():
        own = rows["kind"] == kind
        kept, predicted = _side_by_side(rows[own & means])
        if kept.empty:
            continue
        judged = pd.DataFrame(_with_ends(kept, predicted, kept.index.get_level_values("family").to_numpy(dtype=str)))
        judged = judged.assign(predictor=predicted.columns, kind=kind, settings=len(kept))
        judged["pruners"] = kept.index.get_level_values("family").nunique()
        single = _statistics(*(part.to_numpy(dtype=float) for part in _side_by_side(rows[own & ~means])))
        found.append(judged.assign(task_error=single[0], task_rank=single[1])[ACCURACY])
    if not found:
        raise TooLittle("no task was evaluated for several pruners")
    return pd.concat(found, ignore_index=True)


def _side_by_side(rows: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """Return the retained fractions, and the predictions with a column per predictor, where all of them predict."""
    about = ["family", *WHO, "task"]
    wide = rows.pivot(index=about, columns="predictor", values="predicted")[list(rows["predictor"].unique())].dropna()
    return rows.drop_duplicates(about).set_index(about)["kept"].reindex(wide.index), wide


def _with_ends(kept: pd.Series, predicted: pd.DataFrame, families: np.ndarray) -> dict[str, np.ndarray]:
    """Compute each of `STATISTICS` and the ends of its interval, one value per predictor."""
    y, x = kept.to_numpy(dtype=float), predicted.to_numpy(dtype=float)
    names, numbers = np.unique(families, return_inverse=True)
    places = [np.flatnonzero(numbers == number) for number in range(len(names))]
    draws = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    drawn = (np.concatenate([places[family] for family in draw]) for draw in draws)
    resampled = np.stack([_statistics(y[chosen], x[chosen]) for chosen in drawn])
    # Resamples with constant fractions have no correlation and are ignored.
    found = _statistics(y, x)
    ends = _quantiles(resampled, expanded(len(names))) if len(names) > 1 else np.full((2, *found.shape), np.nan)
    values = [found, *ends]
    return {
        f"{name}{end}": value[place]
        for place, name in enumerate(STATISTICS)
        for end, value in zip(("", "_low", "_high"), values, strict=True)
    }


def _quantiles(resampled: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Compute quantiles (ends, ...) of the known values over the first axis; NaN where none is known."""
    none = ~np.isfinite(resampled).any(axis=0)
    found = np.nanquantile(np.where(none, 0.0, resampled), ends, axis=0)
    return np.where(none, np.nan, found)


def _statistics(kept: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Compute `STATISTICS` (3, predictors) of retained fractions (n,) and predictions (n, predictors)."""
    errors = np.abs(predicted - kept[:, None]).mean(axis=0)
    return np.stack([errors, _rank_correlations(kept, predicted), errors - errors[0]])


def _rank_correlations(kept: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Compute Spearman's rank correlations, ties sharing their mean rank; NaN where one side is constant."""
    ranks = rankdata(np.column_stack([kept, predicted]), axis=0)
    ranks -= ranks.mean(axis=0)
    sizes = np.sqrt((ranks**2).sum(axis=0))
    with np.errstate(invalid="ignore"):
        return ranks[:, 0] @ ranks[:, 1:] / (sizes[0] * sizes[1:])
