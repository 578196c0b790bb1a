"""Logs a job to its tracked run: scores, generated texts, curves, figures and artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.analysis.prompt_means import mean_over_prompts
from pipeline.analysis.score_rows import PERPLEXITY, final_deviation, mean_scores, perplexities
from pipeline.config.schema import FREE_RUNNING, LAYER, TEACHER_FORCED
from pipeline.evaluate.suite import GENERATIVE
from pipeline.measure.columns import COLUMNS, further_columns
from pipeline.tables.job_tables import JobTables
from pipeline.track import Tracker

if TYPE_CHECKING:
    from pipeline.plot.drawing import FigureResult

# Columns of the table of generated texts.
_SAMPLE = ["task", "item", "prompt", "completion", "answer", "gold", "score"]
# Artifacts that go to the run, and the names that they have there.
_ARTIFACTS = {"decision": "decision", "evaluation": "scores", "measures": "measures", "set measures": "set-measures"}


def log_results(tables: JobTables, tracker: Tracker, drawn: Sequence[FigureResult]) -> None:
    """Log the results of a job to its run."""
    record = tables.record
    scores, dense = _score_summary(tables.scores, ""), _score_summary(tables.dense_scores, "dense/")
    tracker.summary({"achieved": record.achieved, **scores, **dense})
    if layers := tables.decision.get("achieved_by_layer"):
        tracker.curve("layer", pd.DataFrame({"layer": range(len(layers)), "achieved": layers}), "layer")
    if tables.scores is not None:
        tracker.table("scores", tables.scores)
    if "evaluation" in record.artifacts:
        tracker.table("generations", _generations(tables))
    if tables.comparisons is not None:
        tracker.table("comparison with dense", tables.comparisons)
    if tables.measures is not None:
        tracker.summary({f"final/{name}": value for name, value in final_deviation(tables.measures).items()})
        _log_curves(tracker, tables.measures)
    if tables.set_measures is not None:
        _log_sets(tracker, tables.set_measures)
    log_figures(tracker, drawn)
    for role, name in _ARTIFACTS.items():
        if role in record.artifacts:
            files = sorted((tables.store.root / record.artifacts[role]).iterdir())
            ids = {"settings": record.settings, "variant_id": record.variant_id, "settings_id": record.settings_id}
            tracker.artifact(f"{name}-{record.job}", name, files, ids)


def _generations(tables: JobTables) -> pd.DataFrame:
    """Return prompt, text, gold and score of every generative item."""
    rows = [sample for sample in tables.samples() if sample["kind"] == GENERATIVE]
    frame = pd.DataFrame(rows, columns=_SAMPLE)
    # A table column has one type; gold answers may be one text or several.
    return frame.assign(gold=frame["gold"].map(str), answer=frame["answer"].map(str))


def _score_summary(scores: pd.DataFrame | None, prefix: str) -> dict[str, float]:
    if scores is None:
        return {}
    main = scores[scores["main"]]
    single = {f"{prefix}{row.kind}/{row.task}": float(row.value) for row in main.itertuples()}
    means = {f"{prefix}{kind}/mean": value for kind, value in mean_scores(scores).items()}
    texts = perplexities(scores)
    return single | means | ({f"{prefix}{PERPLEXITY}/mean": fmean(texts.values())} if texts else {})


def _log_curves(tracker: Tracker, measures: pd.DataFrame) -> None:
    """Log means over prompts by layer for each sublayer, and by step for the final state, at the first temperature."""
    measures = measures[measures.temperature == measures.temperature.iloc[0]]
    columns = [*COLUMNS, *further_columns(measures)]
    for kind, frame in measures[measures.protocol == LAYER].groupby("sublayer"):
        tracker.curve(f"layer/{kind}", mean_over_prompts(frame, columns, ["layer"]), "layer")
    for protocol in (TEACHER_FORCED, FREE_RUNNING):
        final = measures[measures.protocol == protocol]
        if len(final):
            tracker.curve(f"step/{protocol}", final.groupby("step")[columns].mean().reset_index(), "step")


def _log_sets(tracker: Tracker, rows: pd.DataFrame) -> None:
    """Log measures of sets: by layer for each sublayer, of the final states as numbers, and all as a table."""
    tracker.table("measures of sets", rows)
    for kind, frame in rows[rows.protocol == LAYER].groupby("sublayer"):
        by_layer = frame.pivot(index="layer", columns="measure", values="value").reset_index()
        tracker.curve(f"layer/{kind}", by_layer, "layer")
    final = rows[rows.protocol != LAYER]
    tracker.summary({f"{row.protocol}/{row.measure}": float(row.value) for row in final.itertuples()})


def receipt_of(tracker: Tracker | None) -> dict[str, Any]:
    if tracker is None:
        return {}
    try:
        receipt = tracker.receipt
    except RuntimeError as error:  # interrupted while the run was being closed
        return {"problem": str(error)}
    return {
        "id": receipt.run_id,
        "group": receipt.group,
        "mode": receipt.mode,
        "url": receipt.url,
        "directory": str(receipt.directory) if receipt.directory else None,
        "sync": receipt.sync_command,
        "exit_code": receipt.exit_code,
        "verified": receipt.verified,
        "problem": receipt.problem,
    }


def log_figures(tracker: Tracker, drawn: Sequence[FigureResult]) -> None:
    """Log the pictures of figures with their captions."""
    for figure in drawn:
        for path in figure.paths:
            if path.suffix == ".png":
                tracker.image(f"figures/{figure.name}", path, figure.caption)
