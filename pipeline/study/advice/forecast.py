"""Prediction of the scores that settings retain without evaluation, from evaluated settings of the same model."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from pipeline.analysis.prediction import PREDICTORS, REPRESENTATIONS, TooLittle, features, fit, targets
from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.intervals import Interval
from pipeline.study.advice.ladder import Kept, Setting
from pipeline.tables.choice import Choice
from pipeline.tables.read import load
from pipeline.tables.variants import VARIANT

_COLUMNS = PREDICTORS[REPRESENTATIONS]


@dataclass(frozen=True)
class Forecast:
    """Teacher-forced KL of each setting, in nats per token, and the predicted share retained by kind of task.

    ``basis`` says in a sentence what predictions rest on, or why there are none.
    """

    divergence: dict[Setting, float] = field(default_factory=dict)
    kept: Kept = field(default_factory=dict)
    basis: str = ""


def forecast(outputs: Path, choices: Sequence[Choice], jobs: Collection[str]) -> Forecast:
    """Predict the measured settings of some jobs from all settings evaluated on one of the suites.

    Args:
        outputs: the folder that holds `tables/`.
        choices: the model and conditions of the jobs of each suite; the jobs of the first were measured, too.
        jobs: those that are asked about. The folder may hold others of the same pruner with other options.
    """
    tables, *others = (load(outputs, choice) for choice in choices)
    compared = [part for part in (tables.comparisons, *(other.comparisons for other in others)) if not part.empty]
    tables = replace(tables, comparisons=pd.concat(compared, ignore_index=True) if compared else pd.DataFrame())
    found, goals = features(tables), targets(tables)
    asked = found.merge(tables.jobs.loc[tables.jobs["job"].isin(jobs), VARIANT].drop_duplicates(), on=VARIANT)
    known = {(row.pruner, row.sparsity): float(row.kl) for row in asked.itertuples() if math.isfinite(row.kl)}
    try:
        predictor = fit(found, goals, _COLUMNS)
    except TooLittle as reason:
        return Forecast(known, basis=f"Nothing is predicted: {reason}.")
    kept: dict[Setting, dict[str, Interval]] = {}
    rows = predictor.predict(asked)
    for row in rows[(rows["task"] == MEAN) & rows["predicted"].notna()].itertuples():
        interval = Interval(float(row.predicted), float(row.low), float(row.high))
        kept.setdefault((row.pruner, row.sparsity), {})[str(row.kind)] = interval
    settings = goals.drop_duplicates(VARIANT)
    basis = (
        "Lines: predicted from KL over all tokens and over those the dense model is most confident in, fitted to "
        f"{len(settings)} evaluated settings of {settings['family'].nunique()} pruners; bands: 95% intervals from the "
        "errors on held-out pruners."
    )
    return Forecast(known, kept, basis)
