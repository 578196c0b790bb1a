"""Finding on answers that pruned models no longer generate: demoted or erased, read from jobs of fig30."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.analysis.demotion import demotion, percent_of
from pipeline.evaluate.fidelity import HIGH, IN_REACH
from pipeline.store.artifacts import Store
from pipeline.study.findings.finished_jobs import default_conditions, jobs_of
from pipeline.study.findings.source import Measured, Source, commit_of
from pipeline.study.findings.table import Grid
from pipeline.study.findings.versions import versions_of_jobs
from pipeline.tables.choice import Choice
from pipeline.tables.read import load

COMMAND = "python -m pipeline.main -m experiment=fig30"
WANTED = (("attn_drop", "8"), ("mlp_drop", "8"), ("shortgpt", "4"), ("wanda", "0.5"))
_ROLES = ("decision", "dense evaluation", "evaluation", "comparison")


def read(outputs: Path) -> Measured:
    """Return a table with a row a pruner. Raises NoResults if jobs are missing."""
    store = Store(outputs)
    jobs = jobs_of(store, default_conditions(), WANTED, COMMAND)
    rows = demotion(load(outputs, Choice(jobs[0].model_id, jobs[0].settings_id)))
    newest = max(jobs, key=lambda job: job.finished)
    stages = versions_of_jobs(jobs, store, _ROLES)
    return Measured({"table": table(rows)}, stages, commit_of(newest.origin), newest.finished[:10])


def table(rows: pd.DataFrame) -> Grid:
    """Return what `demotion` found of the pruners in `WANTED`, a row each."""
    found = {(str(row["pruner"]), str(row["sparsity"])): row for _, row in rows.iterrows()}
    columns = ["pruner", "sparsity", "lost", f"rank up to {HIGH}", f"beyond {IN_REACH}", "right by multiple choice"]
    return Grid(columns, [[*key, *_cells(found[key])] for key in WANTED if key in found])


def _cells(row: pd.Series) -> list[str]:
    shares = (("high", "ranked"), ("beyond", "ranked"), ("twin", "twins"))
    return [
        f"{row['lost']:.0f} of {row['dense_right']:.0f}",
        *(percent_of(row, name) if row[of] else "" for name, of in shares),
    ]


SOURCES = {"demoted": Source(COMMAND, read)}
