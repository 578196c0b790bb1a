"""What settings that were not evaluated are predicted to keep, from those of the same model that were."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.advice.ladder import Kept, Setting
from pipeline.comparison import MEAN
from pipeline.figures.choice import Choice
from pipeline.figures.table_files import read_table
from pipeline.figures.tables import Tables, load, newest
from pipeline.intervals import Interval
from pipeline.prediction import PREDICTORS, REPRESENTATIONS, TooLittle, features, fit, targets

_COLUMNS = PREDICTORS[REPRESENTATIONS]


@dataclass(frozen=True)
class Forecast:
    """By setting: the teacher-forced KL, in nats a token, and what is predicted to be kept of each kind of task.

    ``basis`` says in a sentence what predictions rest on, or why there are none.
    """

    divergence: dict[Setting, float] = field(default_factory=dict)
    kept: Kept = field(default_factory=dict)
    basis: str = ""


def forecast(outputs: Path, scores: str, states: str, asked: Collection[str]) -> Forecast:
    """Predict every setting that was measured, from all that were evaluated under the same settings.

    Args:
        outputs: the folder that holds `tables/`.
        scores, states: the lines of settings of the scores and of the captured states.
        asked: how tasks were asked, as the tables say; scores that were had otherwise do not count.
    """
    tables = _asked(load(outputs, Choice(scores, states, ())), outputs, asked)
    found, goals = features(tables), targets(tables)
    known = {(row.pruner, row.sparsity): float(row.kl) for row in found.itertuples() if math.isfinite(row.kl)}
    try:
        predictor = fit(found, goals, _COLUMNS)
    except TooLittle as reason:
        return Forecast(known, basis=f"Nothing is predicted: {reason}.")
    kept: dict[Setting, dict[str, Interval]] = {}
    rows = predictor.predict(found)
    for row in rows[(rows["task"] == MEAN) & rows["predicted"].notna()].itertuples():
        interval = Interval(float(row.predicted), float(row.low), float(row.high))
        kept.setdefault((row.pruner, row.sparsity), {})[str(row.kind)] = interval
    settings = goals.drop_duplicates(["pruner", "sparsity"])
    basis = (
        "Lines: predicted from KL, of all tokens and of those the dense model is surest of, fitted to "
        f"{len(settings)} evaluated settings of {settings['family'].nunique()} pruners; bands: 95% intervals by the "
        "errors on pruners that a fit left out."
    )
    return Forecast(known, kept, basis)


def _asked(tables: Tables, outputs: Path, asked: Collection[str]) -> Tables:
    """The tables with scores of tasks that were asked in these ways, even where others were asked later."""
    frame = read_table(outputs, "comparisons", filters=[("settings", "==", tables.choice.scores)])
    if frame is None or frame.empty:
        return tables
    order = {str(job): place for place, job in enumerate(tables.jobs["job"])}
    return replace(tables, comparisons=newest(frame[frame["asked"].isin(asked)], "comparisons", order))
