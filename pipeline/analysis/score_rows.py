"""Jobs as rows of a table for people: one per job, or one for all its replicates, with what distinguishes rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import NamedTuple

import pandas as pd

from pipeline.analysis.prompt_means import mean_over_prompts
from pipeline.config.schema import FREE_RUNNING, TEACHER_FORCED
from pipeline.measure.columns import further_columns
from pipeline.store.records import JobRecord, dense_of
from pipeline.tables.job_columns import DENSE, facts_of_records
from pipeline.tables.job_tables import JobTables
from pipeline.tables.labels import option_texts

PERPLEXITY = "perplexity"
COSINES = ("cos_h", "cos_z", "cos_p")
KL = "kl"
# Configuration groups that say how a job was evaluated; where more keys than _MOST_KEYS differ, ids stand for them.
_ASKING = ("task", "capture", "measure", "perplexity", "probes")
_MOST_KEYS = 3
_UNNAMED = ("_target_", "allow_code_execution")


class Repeated(NamedTuple):
    """Number of one job, or the mean over several replicates with its standard deviation (n - 1)."""

    mean: float
    spread: float
    n: int

    def text(self, digits: int = 3) -> str:
        """Return the number with so many decimals, and with its spread if it is that of several replicates."""
        own = f"{self.mean:.{digits}f}"
        return own if self.n == 1 else f"{own} ± {self.spread:.{digits}f}"


@dataclass
class Row:
    """Jobs of one variant under the same conditions, which differ only in their seeds or draws."""

    jobs: list[JobRecord]
    options: str = ""
    conditions: dict[str, str] = field(default_factory=dict)

    @property
    def first(self) -> JobRecord:
        return self.jobs[0]

    def repeated(self, numbers: Mapping[str, float | None]) -> Repeated | None:
        """Combine a number of each job, by job id, into one; None if no job of the row has it."""
        values = [number for job in self.jobs if (number := numbers.get(job.job)) is not None]
        if not values:
            return None
        return Repeated(fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values))


def rows_of_jobs(jobs: Sequence[JobRecord], baselines: Sequence[JobRecord]) -> list[Row]:
    """Return the rows of these jobs in their order, preceded by those of the dense jobs that belong to them.

    Args:
        jobs: the jobs to show.
        baselines: finished dense jobs; the one with the model, conditions and seed of a job belongs to it.
    """
    there = {job.job for job in jobs}
    dense = {found.job: found for job in jobs if job.pruner != DENSE and (found := dense_of(job, baselines))}
    shown = [*(job for name, job in dense.items() if name not in there), *sorted(jobs, key=lambda j: j.pruner != DENSE)]
    rows: dict[tuple[str, str, str], Row] = {}
    for job in shown:
        key = job.model_id, job.variant_id, job.settings_id
        # A job that ended before its ids were known has a row of its own.
        row = rows.setdefault(key if job.variant_id else (job.job, job.pruner, str(len(rows))), Row([]))
        row.jobs.append(job)
    # A model has its own name in a row: what differs between models needs no other text.
    texts: dict[str, str] = {}
    for model in dict.fromkeys(job.model_id for job in shown):
        texts |= option_texts(facts_of_records([job for job in shown if job.model_id == model]))
    conditions = differing_conditions([row.first for row in rows.values()])
    for row, own in zip(rows.values(), conditions, strict=True):
        row.options, row.conditions = texts.get(row.first.variant_id, ""), own
    return list(rows.values())


def differing_conditions(jobs: Sequence[JobRecord]) -> list[dict[str, str]]:
    """Return for each job the conditions in which these jobs differ, by key; the id where keys do not suffice."""
    if len({job.settings_id for job in jobs}) < 2:
        return [{} for _ in jobs]
    facts = [_conditions(job) for job in jobs]
    keys = [key for key in dict.fromkeys(key for each in facts for key in each) if len({e.get(key) for e in facts}) > 1]
    told = {tuple(each.get(key) for key in keys) for each in facts}
    if not keys or len(keys) > _MOST_KEYS or len(told) < len({job.settings_id for job in jobs}):
        return [{"settings": f"#{job.settings_id[:6]}"} for job in jobs]
    return [{key: each.get(key, "") for key in keys} for each in facts]


def _conditions(job: JobRecord) -> dict[str, str]:
    named = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in job.config.items()
        if key.partition(".")[0] in _ASKING and key.rpartition(".")[2] not in _UNNAMED
    }
    return named | {"dtype": job.dtype}


def mean_scores(scores: pd.DataFrame | None) -> dict[str, float]:
    """Compute a job's mean over the tasks of each kind, of main metrics from 0 to 1 where more is better."""
    if scores is None:
        return {}
    main = scores[scores["main"].astype(bool) & scores["averaged"].astype(bool)]
    return {str(kind): float(value) for kind, value in main.groupby("kind")["value"].mean().items()}


def perplexities(scores: pd.DataFrame | None) -> dict[str, float]:
    """Return a job's perplexity on every text."""
    if scores is None:
        return {}
    rows = scores[(scores["kind"] == PERPLEXITY) & scores["main"]]
    return dict(zip(rows["task"], rows["value"].astype(float), strict=True))


def final_deviation(measures: pd.DataFrame | None, protocol: str = FREE_RUNNING) -> dict[str, float]:
    """Compute the mean over prompts of means over steps of a protocol's measures of final states, at one temperature.

    That is the first one. Further measures that the job has come after the usual ones.
    """
    if measures is None:
        return {}
    final = measures[measures.protocol == protocol]
    if final.empty:
        return {}
    final, columns = final[final.temperature == final.temperature.iloc[0]], [*COSINES, KL, *further_columns(final)]
    (means,) = mean_over_prompts(final, columns).to_dict("records")
    return {str(name): float(value) for name, value in means.items()}


def not_averaged(scores: pd.DataFrame | None) -> list[str]:
    """Return the tasks whose main metric is in no mean, as "wmt (bleu)"; perplexities have their own columns."""
    if scores is None:
        return []
    rows = scores[scores["main"].astype(bool) & ~scores["averaged"].astype(bool) & (scores["kind"] != PERPLEXITY)]
    return [f"{row.task} ({row.metric})" for row in rows.itertuples()]


class Numbers:
    """Results of jobs, by job id."""

    def __init__(self, jobs: Iterable[JobTables]) -> None:
        found = {own.record.job: own for own in jobs}
        scores = {job: own.scores for job, own in found.items()}
        self.means: Mapping[str, dict[str, float]] = {job: mean_scores(frame) for job, frame in scores.items()}
        self.texts: Mapping[str, dict[str, float]] = {job: perplexities(frame) for job, frame in scores.items()}
        self.left_out = sorted({task for frame in scores.values() for task in not_averaged(frame)})
        self.final = {job: final_deviation(own.measures) for job, own in found.items()}
        # On the same text, divergence follows the scores; free-running, it only shows that two texts differ.
        self.forced = {job: final_deviation(own.measures, TEACHER_FORCED) for job, own in found.items()}
