"""Logs a job to its tracked run, section by section: scores, generated texts, curves, figures and artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from pipeline.analysis.prompt_means import mean_over_prompts
from pipeline.analysis.score_rows import PERPLEXITY, final_deviation, mean_scores, perplexities
from pipeline.config.schema import DECISIONS, FREE_RUNNING, LAYER, NO_ARTIFACTS, TEACHER_FORCED
from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.fidelity import COLUMNS as FIDELITY
from pipeline.evaluate.suite import GENERATIVE
from pipeline.measure.columns import COLUMNS, further_columns
from pipeline.measure.over_positions import AGREEMENT_COLUMNS
from pipeline.store.integrity import MANIFEST
from pipeline.store.table_names import DECISION
from pipeline.tables.job_tables import JobTables
from pipeline.track import Tracker
from pipeline.track.keys import REMOVED, fidelity_key, mean_key, retained_key, score_key

if TYPE_CHECKING:
    from pipeline.plot.drawing import FigureResult

# Columns of the table of generated texts.
_SAMPLE = ["task", "item", "prompt", "completion", "answer", "gold", "score"]
# Names that artifacts have in W&B, by the role in the job's record.
_ARTIFACTS = {"decision": "decision", "evaluation": "scores", "measures": "measures", "set measures": "set-measures"}


@dataclass(frozen=True)
class Wanted:
    """What a run gets besides numbers and tables: which files, one of `wandb.artifacts`, and the curves by layer.

    Jobs leave those to the dense model's run where they `share` them.
    """

    artifacts: str
    share: bool = False


def log_results(tables: JobTables, tracker: Tracker, wanted: Wanted, last: bool = False) -> None:
    """Log what a job has by now and its run has not. What an earlier job has logged is not logged again.

    At the ``last`` call, its numbers are put into the summary once more.
    """
    for name, section in _SECTIONS.items():
        there = [tables.record.artifacts[role] for role in section.roles if role in tables.record.artifacts]
        if not there:
            continue
        known = tracker.knows(name, " ".join(there))
        if tracker.begins(name, " ".join(there)):
            section.log(tables, tracker, wanted)
            for role in section.roles:
                _log_files(role, tables, tracker, wanted.artifacts)
        if known and last:
            tracker.summary(section.numbers(tables))


def log_dense(dense: JobTables, tracker: Tracker, pruned: JobTables, wanted: Wanted) -> None:
    """Log the dense model's results, and the curves by layer of a pruned job that do not depend on its setting."""
    log_results(dense, tracker, wanted, last=True)
    if (measures := pruned.measures) is not None and tracker.begins(*shared_section(pruned)):
        _log_layers(tracker, measures)


def shared_section(pruned: JobTables) -> tuple[str, str]:
    """Return the section of the dense run that a job's curves by layer are, and what they depend on."""
    return "layers", f"{pruned.record.model_id} {pruned.record.settings_id} {pruned.record.seed}"


def shares_layers(tables: JobTables) -> bool:
    """Return whether a job's curves by layer are those of any setting: each sublayer is left out, one at a time."""
    if not any(tables.dropped.values()):
        return False
    decision = tables.store.root / tables.record.artifacts["decision"]
    return {path.name for path in decision.iterdir()} <= {DECISION, MANIFEST}


def _log_decision(tables: JobTables, tracker: Tracker, wanted: Wanted) -> None:
    record = tables.record
    tracker.config({"parameters": {"dense": record.dense_parameters, "left": record.parameters}})
    tracker.history(_removed(tables))
    if layers := tables.decision.get("achieved_by_layer"):
        tracker.curve("layer", pd.DataFrame({"layer": range(len(layers)), REMOVED: layers}), "layer")


def _removed(tables: JobTables) -> dict[str, float | None]:
    return {REMOVED: tables.record.achieved}


def _log_scores(tables: JobTables, tracker: Tracker, wanted: Wanted) -> None:
    tracker.history(_headline_scores(tables))
    tracker.summary(_scores(tables))
    if tables.scores is not None:
        tracker.table("scores", tables.scores)
    if "evaluation" in tables.record.artifacts:
        tracker.table("generations", _generations(tables))
    if tables.comparisons is not None:
        tracker.table("comparison with dense", tables.comparisons)
    if tables.fidelity is not None:
        tracker.table("fidelity to dense", tables.fidelity)


def _headline_scores(tables: JobTables) -> dict[str, float | None]:
    """Return the mean over the tasks of each kind, and the share of the dense score above chance that it retains."""
    means = {mean_key(kind): value for kind, value in mean_scores(tables.scores).items()} | _fidelity(tables)
    if texts := perplexities(tables.scores):
        means[mean_key(PERPLEXITY)] = fmean(texts.values())
    frame = tables.comparisons
    rows = [] if frame is None else frame[frame["task"] == MEAN][["kind", "retained"]].dropna().itertuples(index=False)
    return {**means, **{retained_key(kind): float(retained) for kind, retained in rows}}


def _scores(tables: JobTables) -> dict[str, float | None]:
    """Return the headline scores and those of every task."""
    frame = tables.scores
    rows = [] if frame is None else frame[frame["main"].astype(bool)].itertuples()
    return {**{score_key(row.kind, row.task): float(row.value) for row in rows}, **_headline_scores(tables)}


def _fidelity(tables: JobTables) -> dict[str, float | None]:
    """Return how the answers differ from the dense model's, over the tasks of each kind; what does not apply is out."""
    frame = tables.fidelity
    if frame is None:
        return {}
    rows = frame.loc[frame["task"] == MEAN, FIDELITY].to_dict("records")
    return {
        fidelity_key(str(row["kind"]), name): float(value)
        for row in rows
        for name, value in row.items()
        if name not in ("task", "kind") and pd.notna(value)
    }


def _agreement(tables: JobTables) -> dict[str, float | None]:
    """Return the measures of final states over positions, by protocol, at the first temperature."""
    frame = tables.agreement
    if frame is None or frame.empty:
        return {}
    rows = frame.loc[frame["temperature"] == frame["temperature"].iloc[0], AGREEMENT_COLUMNS].to_dict("records")
    own = [name for name in AGREEMENT_COLUMNS if name not in ("protocol", "temperature", "n", "kl_mean")]
    return {f"{row['protocol']}/{name}": float(row[name]) for row in rows for name in own}


def _generations(tables: JobTables) -> pd.DataFrame:
    """Return prompt, text, gold and score of every generative item."""
    rows = [sample for sample in tables.samples() if sample["kind"] == GENERATIVE]
    frame = pd.DataFrame(rows, columns=_SAMPLE)
    # A table column has one type; gold answers may be one text or several.
    return frame.assign(gold=frame["gold"].map(str), answer=frame["answer"].map(str))


def _log_measures(tables: JobTables, tracker: Tracker, wanted: Wanted) -> None:
    """Log means over prompts by layer for each sublayer, and by step for the final state, at the first temperature."""
    measures = tables.measures
    if measures is None:
        return
    tracker.history(_deviations(tables))
    if not (wanted.share and shares_layers(tables)):
        _log_layers(tracker, measures)
    measures = measures[measures.temperature == measures.temperature.iloc[0]]
    columns = [*COLUMNS, *further_columns(measures)]
    for protocol in (TEACHER_FORCED, FREE_RUNNING):
        final = measures[measures.protocol == protocol]
        if len(final):
            tracker.curve(f"step/{protocol}", final.groupby("step")[columns].mean().reset_index(), "step")


def _log_layers(tracker: Tracker, measures: pd.DataFrame) -> None:
    measures = measures[measures.temperature == measures.temperature.iloc[0]]
    columns = [*COLUMNS, *further_columns(measures)]
    for kind, frame in measures[measures.protocol == LAYER].groupby("sublayer"):
        tracker.curve(f"layer/{kind}", mean_over_prompts(frame, columns, ["layer"]), "layer")


def _deviations(tables: JobTables) -> dict[str, float | None]:
    """Return the measures of the final states, by protocol."""
    return {
        f"{protocol}/{name}": value
        for protocol in (TEACHER_FORCED, FREE_RUNNING)
        for name, value in final_deviation(tables.measures, protocol).items()
    } | _agreement(tables)


def _log_sets(tables: JobTables, tracker: Tracker, wanted: Wanted) -> None:
    """Log measures of sets: by layer for each sublayer, of the final states as numbers, and all as a table."""
    if (rows := tables.set_measures) is None:
        return
    tracker.table("measures of sets", rows)
    for kind, frame in rows[rows.protocol == LAYER].groupby("sublayer"):
        by_layer = frame.pivot(index="layer", columns="measure", values="value").reset_index()
        tracker.curve(f"layer/{kind}", by_layer, "layer")
    tracker.history(_of_sets(tables))


def _of_sets(tables: JobTables) -> dict[str, float | None]:
    if (rows := tables.set_measures) is None:
        return {}
    return {f"{row.protocol}/{row.measure}": float(row.value) for row in rows[rows.protocol != LAYER].itertuples()}


class _Section(NamedTuple):
    """Part of a run: the roles of the artifacts that it is logged from, what logs it, and its numbers alone."""

    roles: tuple[str, ...]
    log: Callable[[JobTables, Tracker, Wanted], None]
    numbers: Callable[[JobTables], Mapping[str, float | None]]


_SECTIONS = {
    "decision": _Section(("decision",), _log_decision, _removed),
    "scores": _Section(("evaluation", "perplexity", "comparison"), _log_scores, _scores),
    "measures": _Section(("measures",), _log_measures, _deviations),
    "measures of sets": _Section(("set measures",), _log_sets, _of_sets),
}


def _log_files(role: str, tables: JobTables, tracker: Tracker, artifacts: str) -> None:
    """Log the files of an artifact, of a decision only where weights and masks are wanted."""
    record = tables.record
    if artifacts == NO_ARTIFACTS or role not in _ARTIFACTS or role not in record.artifacts:
        return
    if role == "decision" and artifacts != DECISIONS:
        return
    name = _ARTIFACTS[role]
    files = sorted((tables.store.root / record.artifacts[role]).iterdir())
    ids = {"settings": record.settings, "variant_id": record.variant_id, "settings_id": record.settings_id}
    tracker.artifact(f"{name}-{record.job}", name, files, ids)


def receipt_of(tracker: Tracker | None) -> dict[str, Any]:
    """Return what the record of a job keeps of its run."""
    if tracker is None:
        return {}
    try:
        return tracker.receipt.facts()
    except RuntimeError as error:  # interrupted while the run was being closed
        return {"problem": str(error)}


def log_figures(tracker: Tracker, drawn: Sequence[FigureResult]) -> None:
    """Log the pictures of figures with their captions, each again only when it has changed."""
    for figure in drawn:
        for path in figure.paths:
            if path.suffix == ".png" and tracker.begins(figure.name, hashlib.sha256(path.read_bytes()).hexdigest()):
                tracker.image(f"figures/{figure.name}", path, figure.caption)
