"""Prediction of what a pruned model retains of the dense scores, from measures that are cheaper than evaluation.

The fraction of a task's score above chance that is retained is modelled as a logistic curve of the logarithms of the
measures (Hill 1910): ``logit(kept) = a - sum_j b_j log d_j``, with slopes ``b_j >= 0`` that the tasks of a kind share
and an intercept ``a`` of each task that is shrunk towards that of its kind. It is fitted as a fractional logit (Papke
and Wooldridge 1996), whose penalised likelihood has one optimum; fractions outside 0 to 1 are clipped for the fit.
Errors are always those on pruners unseen by the fit, with all draws of a random pruner left out together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import t as student

from pipeline.analysis.prediction_data import PREDICTORS, REPRESENTATIONS, WHO, features, kind_means, targets
from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.intervals import LEVEL
from pipeline.tables.variants import DENSE

__all__ = [
    "PREDICTORS",
    "REPRESENTATIONS",
    "Predictor",
    "TooLittle",
    "cross_validate",
    "features",
    "fit",
    "targets",
]

FEWEST_PRUNERS, FEWEST_SETTINGS = 3, 6
# Measures below this are raised to it: their effect would be too small to measure.
FLOOR = 1e-3
# Penalties on squared slopes, tasks' offsets from their kind, and the kind's intercept, in units of evaluated tasks.
RIDGE_SLOPES, RIDGE_TASKS, RIDGE_KIND = 0.1, 1.0, 0.01
# Added to p(1 - p), to keep expected errors, which grow with its root, from vanishing near 0 and 1.
SLACK = 0.05
PREDICTED = ["predicted", "low", "high"]


class TooLittle(ValueError):
    """Raised for too few settings to fit a prediction to; the message says what is needed, without the remedy."""


@dataclass(frozen=True)
class Curve:
    """Curve of one kind of task: logit(kept) = places[task] - slopes · (log max(d, FLOOR) - centre) / scale.

    ``places`` (tasks,) are the intercepts, NaN for tasks that were not fitted; the other fields are (columns,).
    """

    centre: np.ndarray
    scale: np.ndarray
    slopes: np.ndarray
    places: np.ndarray

    def kept(self, measured: np.ndarray, task: np.ndarray) -> np.ndarray:
        """Return the fractions (n,) retained of tasks (n,), by number, at measured (n, columns); exactly 1 at all 0."""
        x = (np.log(np.maximum(measured, FLOOR)) - self.centre) / self.scale
        shares = expit(self.places[task] - x @ self.slopes)
        shares[(measured == 0).all(axis=1)] = 1.0
        shares[~np.isfinite(measured).all(axis=1)] = np.nan
        return shares


@dataclass(frozen=True)
class Widths:
    """Half-widths of 95 % intervals, of a single task and of a mean, in units of `_spread` at a prediction."""

    task: float
    mean: float


@dataclass(frozen=True)
class Predictor:
    """Fitted prediction from some ``columns`` of the features: a curve and widths for each kind of task.

    ``signals`` holds the tasks of each kind in the order of the curve's places, each with dense - chance.
    """

    columns: tuple[str, ...]
    curves: Mapping[str, Curve]
    widths: Mapping[str, Widths]
    signals: Mapping[str, Mapping[str, float]]

    def predict(self, features: pd.DataFrame) -> pd.DataFrame:
        """Predict what settings retain of every task that was fitted, and of the mean of each kind.

        Args:
            features: rows of `features`.

        Returns:
            pruner, sparsity, options, task, kind, predicted, low, high: one row for each setting and task, then one of
            the task "mean" for each setting and kind. Missing where a column is; exactly 1 for the dense model. The
            95 % interval is that of a measured fraction around the prediction. It comes from Student's t and the
            errors that fits without one pruner make on that pruner, relative to sqrt(p(1 - p) + SLACK) at a prediction
            p, with as many degrees of freedom as pruners less one.
        """
        measured = features[list(self.columns)].to_numpy(dtype=float)
        parts = []
        for kind, curve in self.curves.items():
            for place, (task, signal) in enumerate(self.signals[kind].items()):
                shares = curve.kept(measured, np.full(len(measured), place))
                parts.append(features[WHO].assign(task=task, kind=kind, signal=signal, predicted=shares))
        rows = pd.concat(parts, ignore_index=True)
        rows = pd.concat([rows, kind_means(rows, ["predicted"])], ignore_index=True)
        widths = [
            self.widths[kind].mean if task == MEAN else self.widths[kind].task
            for kind, task in zip(rows["kind"], rows["task"], strict=True)
        ]
        return _with_interval(rows.assign(width=widths))[[*WHO, "task", "kind", *PREDICTED]]


def fit(features: pd.DataFrame, targets: pd.DataFrame, columns: Sequence[str]) -> Predictor:
    """Fit the retained fractions to some columns of the features, each kind of task separately.

    Settings without one of the columns are ignored, and kinds with too few settings get no prediction.

    Args:
        features, targets: see `features` and `targets`.
        columns: of the features, such as one of `PREDICTORS`.

    Raises:
        TooLittle: if no kind of task has `FEWEST_SETTINGS` settings of `FEWEST_PRUNERS` pruners with these columns.
    """
    kinds = _samples(enough(joined(features, targets, columns)), columns)
    curves = {kind: sample.curve(frozenset()) for kind, sample in kinds.items()}
    widths = {kind: sample.widths(frozenset()) for kind, sample in kinds.items()}
    return Predictor(tuple(columns), curves, widths, {kind: sample.signals() for kind, sample in kinds.items()})


def cross_validate(features: pd.DataFrame, targets: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Predict every evaluated setting from those of the other pruners, intervals included.

    Returns:
        pruner, sparsity, options, family, task, kind, kept, predicted, low, high: one row for each setting and task
        that was evaluated, and for the mean of each kind over these tasks. Missing where only the left-out pruner has
        a task.

    Raises:
        TooLittle: as `fit` does.
    """
    parts = []
    for sample in _samples(enough(joined(features, targets, columns)), columns).values():
        predicted = sample.left_out(frozenset())
        widths = [sample.widths(frozenset([family])) for family in range(len(sample.families))]
        rows = sample.rows.assign(predicted=predicted, width=[widths[family].task for family in sample.family])
        means = kind_means(rows[rows["predicted"].notna()], ["kept", "predicted"])
        means = means.assign(family=means["pruner"])
        known = {name: own.mean for name, own in zip(sample.families, widths, strict=True)}
        parts += [rows, means.assign(width=means["family"].map(known))]
    return _with_interval(pd.concat(parts, ignore_index=True))[[*WHO, "family", "task", "kind", "kept", *PREDICTED]]


def joined(features: pd.DataFrame, targets: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the targets of settings that have finite values in all columns, with these columns."""
    known = features[[*WHO, *columns]]
    known = known[np.isfinite(known[list(columns)].to_numpy(dtype=float)).all(axis=1)]
    return targets.merge(known, on=WHO)


def enough(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of kinds with enough settings to fit. Raises TooLittle if there are none."""
    settings = rows.drop_duplicates([*WHO, "kind"]).groupby("kind")
    counts = settings.agg(settings=("pruner", "size"), pruners=("family", "nunique"))
    large = counts[(counts["settings"] >= FEWEST_SETTINGS) & (counts["pruners"] >= FEWEST_PRUNERS)]
    if large.empty:
        most = counts.max() if len(counts) else pd.Series({"settings": 0, "pruners": 0})
        raise TooLittle(
            f"{most['settings']} settings of {most['pruners']} pruners have both scores and measures; a prediction "
            f"needs at least {FEWEST_SETTINGS} settings of {FEWEST_PRUNERS} pruners"
        )
    return rows[rows["kind"].isin(large.index)].reset_index(drop=True)


@dataclass(frozen=True)
class _Sample:
    """Evaluated tasks of one kind, with their names as numbers, and every curve that was fitted to some of them.

    ``without`` holds curves by the families that were left out: the curve without a pair serves both of its members.
    """

    rows: pd.DataFrame
    measured: np.ndarray
    task: np.ndarray
    tasks: list[str]
    family: np.ndarray
    families: list[str]
    setting: np.ndarray
    without: dict[frozenset[int], Curve] = field(default_factory=dict)

    def signals(self) -> dict[str, float]:
        """Return dense - chance of each task, in the order of their numbers."""
        return {
            task: float(self.rows["signal"].to_numpy()[self.task == place].mean())
            for place, task in enumerate(self.tasks)
        }

    def curve(self, out: frozenset[int]) -> Curve:
        """Return the curve fitted to all families except those in ``out``."""
        if out not in self.without:
            own = ~np.isin(self.family, list(out))
            kept, weight = (self.rows[name].to_numpy(dtype=float)[own] for name in ("kept", "weight"))
            self.without[out] = _curve(self.measured[own], self.task[own], len(self.tasks), kept, weight)
        return self.without[out]

    def left_out(self, out: frozenset[int]) -> np.ndarray:
        """Predict each row from all families except its own and those in ``out``; rows of the latter are NaN."""
        shares = np.full(len(self.rows), np.nan)
        for family in set(range(len(self.families))) - out:
            own = self.family == family
            shares[own] = self.curve(out | {family}).kept(self.measured[own], self.task[own])
        return shares

    def widths(self, out: frozenset[int]) -> Widths:
        """Compute interval widths from the errors on each family of a fit without it, except those in ``out``."""
        if len(self.families) - len(out) < 2:
            return Widths(math.inf, math.inf)
        predicted = self.left_out(out)
        known = np.isfinite(predicted)
        if not known.any():
            return Widths(math.inf, math.inf)
        kept, signal = (self.rows[name].to_numpy(dtype=float)[known] for name in ("kept", "signal"))
        predicted, setting = predicted[known], self.setting[known]
        factor = float(student.ppf(0.5 + LEVEL / 2, len(np.unique(self.family[known])) - 1))
        total = np.bincount(setting, signal)
        means = [np.bincount(setting, signal * values)[total > 0] / total[total > 0] for values in (kept, predicted)]
        return Widths(factor * _error(kept, predicted), factor * _error(*means))


def _samples(rows: pd.DataFrame, columns: Sequence[str]) -> dict[str, _Sample]:
    samples = {}
    for kind, own in rows.groupby("kind", sort=False):
        tasks, task = np.unique(own["task"].to_numpy(dtype=str), return_inverse=True)
        families, family = np.unique(own["family"].to_numpy(dtype=str), return_inverse=True)
        measured, setting = own[list(columns)].to_numpy(dtype=float), own.groupby(WHO).ngroup().to_numpy()
        samples[str(kind)] = _Sample(own, measured, task, tasks.tolist(), family, families.tolist(), setting)
    return samples


def _curve(measured: np.ndarray, task: np.ndarray, tasks: int, kept: np.ndarray, weight: np.ndarray) -> Curve:
    """Fit the one optimum of the penalised likelihood to measured (n, columns) of tasks (n,) numbered < ``tasks``."""
    x = np.log(np.maximum(measured, FLOOR))
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    x = (x - centre) / scale
    weight, kept = weight / weight.mean(), np.clip(kept, 0.0, 1.0)
    slopes = x.shape[1]

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        b, places, common = values[:slopes], values[slopes:-1], values[-1]
        logit = common + places[task] - x @ b
        error = weight * (expit(logit) - kept)
        loss = weight @ (np.logaddexp(0, logit) - kept * logit)
        loss += (RIDGE_SLOPES * b @ b + RIDGE_TASKS * places @ places + RIDGE_KIND * common**2) / 2
        by_task = np.bincount(task, error, tasks) + RIDGE_TASKS * places
        of_kind = error.sum() + RIDGE_KIND * common
        return float(loss), np.concatenate([RIDGE_SLOPES * b - error @ x, by_task, [of_kind]])

    bounds = [(0, None)] * slopes + [(None, None)] * (tasks + 1)
    found = minimize(objective, np.zeros(slopes + tasks + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    places = np.where(np.bincount(task, minlength=tasks) > 0, found[slopes:-1] + found[-1], np.nan)
    return Curve(centre, scale, found[:slopes], places)


def _error(kept: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the root mean square of errors in units of `_spread`."""
    return float(np.sqrt(np.mean(((kept - predicted) / _spread(predicted)) ** 2)))


def _spread(predicted: np.ndarray) -> np.ndarray:
    return np.sqrt(predicted * (1 - predicted) + SLACK)


def _with_interval(rows: pd.DataFrame) -> pd.DataFrame:
    width = rows["width"].to_numpy(dtype=float) * _spread(rows["predicted"].to_numpy(dtype=float))
    # The dense model retains all of its own score.
    width[(rows["pruner"] == DENSE).to_numpy()] = 0.0
    return rows.assign(low=rows["predicted"] - width, high=rows["predicted"] + width)
