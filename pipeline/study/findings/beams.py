"""Finding on beam search: whether a pruned model's further beams hold answers that its best beam lacks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.evaluate.several import METRIC
from pipeline.evaluate.suite import GENERATIVE
from pipeline.store.artifacts import Store
from pipeline.study.findings.finished_jobs import default_conditions, jobs_of
from pipeline.study.findings.source import Measured, NoResults, Source, commit_of
from pipeline.study.findings.table import Grid
from pipeline.study.findings.versions import versions_of_jobs
from pipeline.tables.job_tables import JobTables

BEAMS = 5
COMMAND = (
    "python -m pipeline.main -m experiment=fig30 pruner=wanda,attn_drop task.kinds=[generative] task.limit=16 "
    f"task.samples={BEAMS} 'task.gen_kwargs={{num_beams: {BEAMS}}}'"
)
WANTED = (("wanda", "0.5"), ("attn_drop", "8"))
_ROLES = ("decision", "dense evaluation", "evaluation")


def read(outputs: Path) -> Measured:
    """Return a table with a row for the dense model and each pruner. Raises NoResults if jobs are missing."""
    store = Store(outputs)
    conditions = default_conditions() | {"task.limit": 16, "task.samples": BEAMS, "task.kinds": [GENERATIVE]}
    del conditions["task.gen_kwargs"]
    jobs = jobs_of(store, conditions | {"task.gen_kwargs.num_beams": BEAMS}, WANTED, COMMAND)
    tables = [JobTables(job, store) for job in jobs]
    rows = [_row("dense", "0", tables[0].dense_scores)]
    rows += [_row(job.pruner, job.sparsity, own.scores) for job, own in zip(jobs, tables, strict=True)]
    newest = max(jobs, key=lambda job: job.finished)
    values = {"table": Grid(["pruner", "sparsity", "best beam", f"one of {BEAMS} beams"], rows)}
    return Measured(values, versions_of_jobs(jobs, store, _ROLES), commit_of(newest.origin), newest.finished[:10])


def _row(pruner: str, sparsity: str, scores: pd.DataFrame | None) -> list[str]:
    if scores is None:
        raise NoResults(f"{pruner} {sparsity} has no scores; run `{COMMAND}` again")
    means = [scores.loc[scores["metric"] == f"{METRIC}{k}", "value"].mean() for k in (1, BEAMS)]
    return [pruner, sparsity, *(f"{mean:.2f}" for mean in means)]


SOURCES = {"beams": Source(COMMAND, read)}
