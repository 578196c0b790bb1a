"""Load the tidy tables under `outputs/tables` and keep the rows of one model under one set of conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.evaluate.comparison import MEAN
from pipeline.tables.choice import Choice, groups, names_of, peers_of, read_jobs
from pipeline.tables.job_columns import facts_of
from pipeline.tables.labels import option_texts
from pipeline.tables.replicates import average_comparisons, name_replicates, notes_of, tell_prompts_apart
from pipeline.tables.stored import MissingData, read_table
from pipeline.tables.variants import canonical

# All tables but that of jobs.
NAMES = (
    "scores",
    "comparisons",
    "items",
    "rankings",
    "measures",
    "trajectories",
    "options",
    "option_tokens",
    "prompts",
)
WEIGHT = "weight"


@dataclass(frozen=True)
class Tables:
    """The rows of one choice of settings; a table that does not exist is an empty frame.

    Every frame has the columns of `pipeline.tables.job_columns.WHO` and so on, and `options`, what sets a variant apart
    from others here. Jobs that differ in their seed or draw alone are repetitions of one variant, told apart by
    `replicate` ("" where there is one); where there are several, prompts are called after both.

    Attributes:
        scores: the main metric of every task: task, kind, metric, value, stderr, n, higher_is_better, chance, achieved.
        comparisons: the same scores against the dense model's, item by item: columns of `pipeline.evaluate.comparison`,
            without the means over tasks; one row a variant and task, the mean of its repetitions.
        items: the same scores item by item: kind, task, item, score.
        rankings: what pruners that search for units have found: layer, sublayer, score, step (-1: of the unit alone).
        measures: one row a position: protocol ("layer", "teacher_forced", "free_running"), prompt, step, layer,
            sublayer, temperature, the measures, and the dense model's confidence.
        trajectories: tokens that both models generate: prompt, step, dense_token, pruned_token, and their texts.
        options, option_tokens: the options protocol, see `pipeline.capture.options`.
        prompts: the probe prompts: prompt, format, steps, text.
        jobs: one row a job: unit ("block", "attention", "mlp", "sublayer" or "weight"), parameters, dense_parameters.
        other_suites: scores of the same variants in kinds of task that these settings lack, from the newest settings
            that differ from these in their tasks alone; `settings` says which.
        peers: the same choice for other models that were run under the same settings, by model name.
    """

    choice: Choice
    scores: pd.DataFrame
    comparisons: pd.DataFrame
    items: pd.DataFrame
    rankings: pd.DataFrame
    measures: pd.DataFrame
    trajectories: pd.DataFrame
    options: pd.DataFrame
    option_tokens: pd.DataFrame
    prompts: pd.DataFrame
    jobs: pd.DataFrame
    other_suites: pd.DataFrame
    peers: Mapping[str, Tables] = field(default_factory=dict)

    def protocol(self, name: str) -> pd.DataFrame:
        """The measures under one protocol.

        Raises:
            MissingData: if there are none.
        """
        if self.measures.empty:
            raise MissingData("the measures table has no rows for these settings")
        rows = self.measures[self.measures["protocol"] == name]
        if rows.empty:
            raise MissingData(f"the measures table has no rows of the {name} protocol for these settings")
        return rows

    def unit(self, pruner: str) -> str:
        """What a pruner takes away: "block", "attention", "mlp", "sublayer" or "weight"; empty if unknown."""
        known = self.jobs[self.jobs["pruner"] == pruner] if not self.jobs.empty else self.jobs
        return "" if known.empty else str(known["unit"].iloc[-1])

    def changing(self, rows: pd.DataFrame, *, weights: bool) -> pd.DataFrame:
        """The rows of pruners that change weights, or of those that drop whole units.

        Raises:
            MissingData: if there are none.
        """
        names = [name for name in rows["pruner"].unique() if (self.unit(name) == WEIGHT) == weights]
        kept = rows[rows["pruner"].isin(names)]
        if kept.empty:
            what = "changes weights" if weights else "drops whole units"
            raise MissingData(f"no pruner that {what} was measured under these settings")
        return kept

    def model(self) -> str:
        """The model's name."""
        return "" if self.jobs.empty else str(self.jobs["model"].iloc[0])

    def replicate_notes(self) -> tuple[str, ...]:
        """The sentence of a caption that says which variants are shown as the mean of several seeds or draws."""
        return () if self.jobs.empty else notes_of(self.jobs)


def load(outputs: Path, choice: Choice) -> Tables:
    """Load the rows of every table that belong to `choice`; peers likewise."""
    jobs = read_jobs(outputs)
    names = names_of(jobs)
    peers = {names[peer.model_id]: _load(outputs, peer, jobs, names) for peer in peers_of(choice, jobs)}
    return replace(_load(outputs, choice, jobs, names), peers=peers)


def _load(outputs: Path, choice: Choice, jobs: pd.DataFrame, names: Mapping[str, str]) -> Tables:
    same = (jobs["model_id"] == choice.model_id) & (jobs["settings_id"] == choice.settings_id)
    named = _Names(
        names, option_texts(facts_of(row) for row in jobs[same].to_dict("records")), name_replicates(jobs[same])
    )
    mine = _told(jobs[same], named)
    frames = {name: _rows(outputs, name, choice, named) for name in NAMES}
    frames["comparisons"] = average_comparisons(frames["comparisons"])
    others = _other_suites(outputs, choice, jobs, named, set(frames["scores"].get("kind", ())))
    return Tables(choice, jobs=mine, other_suites=others, **frames)


class _Names(NamedTuple):
    """What is called what: models and variants by their ids, repetitions by their jobs."""

    models: Mapping[str, str]
    options: Mapping[str, str]
    replicates: Mapping[str, str]


def _rows(outputs: Path, name: str, choice: Choice, named: _Names) -> pd.DataFrame:
    filters = [("model_id", "==", choice.model_id), ("settings_id", "==", choice.settings_id)]
    frame = read_table(outputs, name, filters=filters)
    if frame is None or frame.empty:
        return pd.DataFrame()
    if name == "scores":
        frame = frame[frame["main"].astype(bool)]
    if name == "comparisons":
        frame = frame[frame["task"] != MEAN]
    frame = _told(frame, named)
    if name == "prompts":
        return frame.drop_duplicates("prompt", keep="last").reset_index(drop=True)
    return tell_prompts_apart(frame).reset_index(drop=True)


def _told(frame: pd.DataFrame, named: _Names) -> pd.DataFrame:
    """The rows with one spelling for each sparsity, a name for each model, their options and their replicate."""
    words = frame["sparsity"].astype(str)
    return frame.assign(
        sparsity=words.map({word: canonical(word) for word in words.unique()}).astype(str),
        model=frame["model_id"].map(named.models).astype(str),
        options=frame["variant_id"].map(named.options).astype(str),
        replicate=frame["job"].map(named.replicates).astype(str),
    )


def _other_suites(outputs: Path, choice: Choice, jobs: pd.DataFrame, named: _Names, kinds: set[str]) -> pd.DataFrame:
    """Scores in kinds of task that the choice lacks, of jobs that were asked as its own but for the tasks."""
    own = jobs[(jobs["model_id"] == choice.model_id) & (jobs["settings_id"] == choice.settings_id)]
    same = jobs[(jobs["model_id"] == choice.model_id) & jobs["base_id"].isin(own["base_id"])]
    parts = []
    # The newest first: another way of asking the same kind of task does not count beside it.
    for group in reversed([group for group in groups(same) if group.settings_id != choice.settings_id]):
        theirs = name_replicates(same[same["settings_id"] == group.settings_id])
        rows = _rows(outputs, "scores", group, named._replace(replicates=theirs))
        rows = rows if rows.empty else rows[~rows["kind"].isin(kinds) & rows["variant_id"].isin(named.options)]
        kinds = kinds | set(rows.get("kind", ()))
        parts += [rows] if len(rows) else []
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def require(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Check that every column exists and holds a finite number somewhere.

    Raises:
        MissingData: naming the columns that do not.
    """
    lacking = [name for name in columns if name not in frame or not np.isfinite(frame[name].astype(float)).any()]
    if lacking:
        raise MissingData(f"the measures table has no values of {', '.join(lacking)} for these settings")
