"""Prediction of the dense scores that settings retain where they were measured but not evaluated.

``python -m pipeline.study.predict`` prints how well measures of representations, beside plain baselines, predict what
pruners left out of the fit retain; then what settings without evaluation are predicted to retain.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.analysis.effects import KIND_NAMES, kind_name
from pipeline.analysis.prediction import PREDICTORS, REPRESENTATIONS, TooLittle, features, fit, targets
from pipeline.analysis.prediction_accuracy import accuracy, compete
from pipeline.analysis.prediction_data import WHO
from pipeline.common.files import replacing
from pipeline.common.terminal import show_table
from pipeline.evaluate.comparison import MEAN
from pipeline.plot.command import status_of, table_parser
from pipeline.run.summary import shown
from pipeline.store.artifacts import Store
from pipeline.tables.choice import Choice, choose
from pipeline.tables.read import Tables, load
from pipeline.tables.variants import DENSE, Variant, ordered

PREDICTIONS = "predictions.parquet"
REMEDY = "measure and evaluate more with python -m pipeline.main -m experiment=fig27"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print accuracies and predictions. Returns 0 if there are some, 1 with too little data, 2 for unknown settings."""
    parser = table_parser(
        "pipeline.study.predict", "Predict the retained scores of settings that were measured but not evaluated.", "use"
    )
    options = parser.parse_args(arguments)
    return status_of(lambda: _predict(options.outputs, options.settings), "cannot predict")


def _predict(outputs: Path, settings: str | None) -> int:
    store = Store(outputs)
    try:
        return _report(store, choose(outputs, settings))
    except TooLittle as error:
        # Earlier predictions, for other settings, would be mistaken for predictions for these.
        (store.tables / PREDICTIONS).unlink(missing_ok=True)
        print(f"{error}; {REMEDY}", file=sys.stderr)
        return 1


def _report(store: Store, choice: Choice) -> int:
    tables = load(store.root, choice)
    measured, kept = features(tables), targets(tables)
    found = accuracy(compete(measured, kept))
    print(f"settings: {choice.line}")
    _show_accuracy(found)
    predictions = unevaluated(measured, kept)
    _show_predictions(predictions)
    _save(predictions, tables, store)
    return 0


def unevaluated(measured: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Predict from the measures of representations what is retained where a kind of task was not evaluated.

    Args:
        measured, kept: see `features` and `targets`.

    Returns:
        pruner, sparsity, options, task, kind, predicted, low, high, as `Predictor.predict` returns them.
    """
    rows = fit(measured, kept, PREDICTORS[REPRESENTATIONS]).predict(measured[measured["pruner"] != DENSE])
    done = pd.MultiIndex.from_frame(kept[[*WHO, "kind"]])
    rows = rows[rows["predicted"].notna() & ~pd.MultiIndex.from_frame(rows[[*WHO, "kind"]]).isin(done)]
    return rows.reset_index(drop=True)


def _show_accuracy(found: pd.DataFrame) -> None:
    rows = []
    for row in found.itertuples():
        error = _interval(row.error, row.error_low, row.error_high)
        rank = _interval(row.rank, row.rank_low, row.rank_high)
        more = "" if row.predictor == REPRESENTATIONS else _interval(row.more, row.more_low, row.more_high, "+.3f")
        about = [kind_name(row.kind), row.predictor, row.pruners, row.settings]
        rows.append([*about, error, rank, more, row.task_error, row.task_rank])
    columns = ["tasks", "from", "pruners", "settings", "error", "rank correlation", "more error"]
    show_table(
        "Predicted from other pruners",
        [*columns, "task error", "task rank"],
        rows,
        "error: mean absolute error of the retained fraction of the dense score above chance, for means over tasks "
        "(task error: for single tasks). rank correlation: Spearman's. Each setting is predicted by a fit without its "
        "pruner; an uninformative predictor therefore scores below 0, since the others retain less where the left-out "
        "pruner retains much. more error: in excess of the prediction from representations, on the same pruners. "
        "Intervals: 95% bootstrap over pruners.",
    )


def _interval(value: float, low: float, high: float, form: str = ".3f") -> str:
    return "–" if math.isnan(value) else f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _show_predictions(predictions: pd.DataFrame) -> None:
    means = predictions[predictions["task"] == MEAN]
    if means.empty:
        print("\nevery measured setting was evaluated: nothing left to predict")
        return
    kinds = [kind for kind in KIND_NAMES if (means["kind"] == kind).any()]
    by = means.set_index([*WHO, "kind"])
    rows = []
    for variant in ordered({Variant(*row) for row in means[WHO].itertuples(index=False)}):
        cells = [_cell(by, (*variant, kind)) for kind in kinds]
        rows.append([variant.label, *cells])
    show_table(
        "Not evaluated: predicted retained fraction",
        ["variant", *(KIND_NAMES[kind] for kind in kinds)],
        rows,
        "Of the mean dense score above chance, predicted from representations; 95% interval for a measured value.",
    )


def _cell(by: pd.DataFrame, key: tuple[str, ...]) -> str | None:
    if key not in by.index:
        return None
    row = by.loc[key]
    return _interval(float(row["predicted"]), float(row["low"]), float(row["high"]), ".2f")


def _save(predictions: pd.DataFrame, tables: Tables, store: Store) -> None:
    path = store.tables / PREDICTIONS
    if predictions.empty:
        path.unlink(missing_ok=True)
        return
    choice = tables.choice
    about = {"model": tables.model(), "model_id": choice.model_id, "settings_id": choice.settings_id}
    about |= {"settings": choice.line}
    with replacing(path) as scratch:
        predictions.assign(**about).to_parquet(scratch, index=False)
    print(f"\npredictions {shown(path)}")


if __name__ == "__main__":
    sys.exit(main())
