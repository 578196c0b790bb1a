"""Findings on what single settings keep of the dense score: zeroed and rounded weights, families that do not split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.suite import GENERATIVE, MULTIPLE_CHOICE
from pipeline.store.artifacts import Store
from pipeline.study.findings.finished_jobs import default_conditions, jobs_of
from pipeline.study.findings.source import Measured, NoResults, Source, Values, commit_of
from pipeline.study.findings.table import Grid
from pipeline.study.findings.versions import versions_of_jobs
from pipeline.tables.job_tables import JobTables

Job = tuple[str, str]
_KINDS = (GENERATIVE, MULTIPLE_CHOICE)
_HOW = "dtype=float32 'stages=[prune,evaluate]'"
ROUNDED = (("awq", "0"), ("rtn", "0"))
ZEROED = tuple((pruner, "0.5") for pruner in ("sparsegpt", "wanda", "magnitude", "random_weights"))
SUBLAYERS = ("attn_drop", "8")
_ROLES = ("decision", "dense evaluation", "evaluation", "comparison")


def weights(comparisons: Mapping[Job, pd.DataFrame]) -> Values:
    """Return a table of what zeroed and rounded weights keep of both kinds of task."""
    lines = [
        [job[0], "4 bits" if job in ROUNDED else job[1], *(retained(own, kind, MEAN) for kind in _KINDS)]
        for job, own in comparisons.items()
    ]
    return {"table": Grid(["pruner", "sparsity", "generation", "multiple choice"], lines)}


def families(comparisons: Mapping[Job, pd.DataFrame]) -> Values:
    """Return what plurals keep of generation, and counting of multiple choice."""
    (own,) = comparisons.values()
    return {"plurals": retained(own, GENERATIVE, "plurals"), "counting": retained(own, MULTIPLE_CHOICE, "counting")}


def retained(comparisons: pd.DataFrame, kind: str, task: str) -> str:
    """Return the share of the dense score above chance with its interval: "39 % [35, 44]"."""
    (row,) = comparisons[(comparisons["task"] == task) & (comparisons["kind"] == kind)].to_dict("records")
    value, low, high = (100 * row[f"retained{end}"] for end in ("", "_low", "_high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"


def _source(values: Callable[[Mapping[Job, pd.DataFrame]], Values], wanted: tuple[Job, ...], command: str) -> Source:
    def read(outputs: Path) -> Measured:
        store = Store(outputs)
        jobs = jobs_of(store, default_conditions(), wanted, command)
        found = {}
        for job in jobs:
            own = JobTables(job, store).comparisons
            if own is None:
                raise NoResults(f"{job.pruner} {job.sparsity} was not compared with the dense model; run `{command}`")
            found[job.pruner, job.sparsity] = own
        newest = max(jobs, key=lambda job: job.finished)
        stages = versions_of_jobs(jobs, store, _ROLES)
        return Measured(values(found), stages, commit_of(newest.origin), newest.finished[:10])

    return Source(command, read)


SOURCES = {
    "weights": _source(
        weights,
        ZEROED + ROUNDED,
        f"python -m pipeline.main -m pruner={','.join(name for name, _ in ZEROED + ROUNDED)} sparsity=0.5 {_HOW}",
    ),
    "families": _source(
        families, (SUBLAYERS,), f"python -m pipeline.main pruner={SUBLAYERS[0]} sparsity={SUBLAYERS[1]} {_HOW}"
    ),
}
