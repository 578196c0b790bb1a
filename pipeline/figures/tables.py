"""Load the tidy tables under `outputs/tables` and keep the rows of one group of comparable jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.comparison import MEAN
from pipeline.figures.base import MissingData
from pipeline.figures.choice import NAMES, Choice, peers_of, read_jobs
from pipeline.figures.table_files import read_table
from pipeline.figures.variants import canonical

# Rows alike in these columns measure the same thing: only those of the newest job count.
IDENTITY = {
    "scores": ["pruner", "sparsity", "kind", "task"],
    "comparisons": ["pruner", "sparsity", "kind", "task"],
    "items": ["pruner", "sparsity", "kind", "task"],
    "rankings": ["pruner", "sparsity"],
    "measures": ["pruner", "sparsity", "protocol", "temperature"],
    "trajectories": ["pruner", "sparsity"],
    "options": ["pruner", "sparsity", "temperature", "origin"],
    "option_tokens": ["pruner", "sparsity", "origin"],
    "prompts": ["prompt"],
}
# What has to be asked alike in all rows of a table: the newest way counts, since other items give other scores.
ASKED = {
    "scores": ["kind", "task"],
    "comparisons": ["kind", "task"],
    "items": ["kind", "task"],
    "options": ["origin"],
    "option_tokens": ["origin"],
}
PROBE = "probe"  # the origin of prompts that no task suite changes
WEIGHT = "weight"


@dataclass(frozen=True)
class Tables:
    """The rows of one choice of settings; a table that does not exist is an empty frame.

    Attributes:
        scores: the main metric of every task: model, pruner, sparsity, achieved, task, kind, metric, value, stderr, n,
            higher_is_better, chance. Every task was asked alike in all its rows.
        comparisons: the same scores against the dense model's, item by item: the columns of `pipeline.comparison`,
            without the means, which are over the tasks of one job.
        items: the same scores item by item: kind, task, item, score.
        rankings: what pruners that search for units have found: layer, sublayer, score, step (-1: of the unit alone).
        measures: one row a position: protocol ("layer", "teacher_forced", "free_running"), prompt, step, layer,
            sublayer, temperature, the measures, and the dense model's confidence.
        trajectories: tokens that both models generate: prompt, step, dense_token, pruned_token, and their texts.
        options, option_tokens: the options protocol, see `pipeline.options`.
        prompts: the probe prompts: prompt, format, steps, text.
        jobs: one row a job: pruner, sparsity, unit ("block", "attention", "mlp", "sublayer" or "weight"),
            parameters, dense_parameters.
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
        """The model's name, from the first table that has rows."""
        frames = (self.scores, self.measures, self.trajectories, self.options, self.prompts)
        return next((str(frame["model"].iloc[0]) for frame in frames if not frame.empty), "")


def load(outputs: Path, choice: Choice) -> Tables:
    """The rows of every table that belong to `choice`, one job's for each thing measured; peers likewise."""
    peers = [_load(outputs, peer) for peer in peers_of(choice)]
    return replace(_load(outputs, choice), peers={tables.model(): tables for tables in peers})


def _load(outputs: Path, choice: Choice) -> Tables:
    jobs = read_jobs(outputs)
    order = {str(job): place for place, job in enumerate(jobs["job"])}
    frames = {name: _rows(outputs, name, choice.of(kind), order) for name, kind in NAMES.items()}
    mine = jobs[jobs["settings"].isin(choice.lines) | jobs["states"].isin(choice.lines)]
    return Tables(choice, jobs=_spelled(mine), **frames)


def require(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Check that every column exists and holds a finite number somewhere.

    Raises:
        MissingData: naming the columns that do not.
    """
    lacking = [name for name in columns if name not in frame or not np.isfinite(frame[name].astype(float)).any()]
    if lacking:
        raise MissingData(f"the measures table has no values of {', '.join(lacking)} for these settings")


def _rows(outputs: Path, name: str, settings: str, order: dict[str, int]) -> pd.DataFrame:
    frame = read_table(outputs, name, filters=[("settings", "==", settings)])
    if frame is None:
        return pd.DataFrame()
    return frame if frame.empty else newest(_spelled(frame), name, order)


def newest(frame: pd.DataFrame, name: str, order: Mapping[str, int]) -> pd.DataFrame:
    """Of rows that measure the same thing, those of the newest job; of tasks' items, those that were asked alike.

    Args:
        frame: rows of the table `name` under one line of settings.
        order: the place of each job by age, the newest one's last; jobs that it lacks rank below all others.
    """
    if name == "scores":
        frame = frame[frame["main"].astype(bool)]
    if name == "comparisons":
        frame = frame[frame["task"] != MEAN]
    frame = frame.reset_index(drop=True)
    unknown = {str(job): place - len(frame) for place, job in enumerate(frame["job"].unique())}
    rank = frame["job"].astype(str).map({**unknown, **order})
    if name in ASKED and "asked" in frame and not frame.empty:
        last = rank.groupby([frame[column] for column in ASKED[name]]).transform("idxmax")
        alike = frame["asked"] == frame.loc[last, "asked"].to_numpy()
        if "origin" in frame:
            alike |= frame["origin"] == PROBE
        frame, rank = frame[alike], rank[alike]
    latest = rank.groupby([frame[column] for column in IDENTITY[name]]).transform("max")
    return frame[rank == latest].reset_index(drop=True)


def _spelled(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one spelling for each sparsity."""
    words = frame["sparsity"].astype(str)
    return frame.assign(sparsity=words.map({word: canonical(word) for word in words.unique()}))
