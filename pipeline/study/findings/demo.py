"""Findings of `make demo`, read from its finished jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.analysis.prompt_means import mean_over_prompts
from pipeline.analysis.score_rows import COSINES, KL, Numbers, rows_of_jobs
from pipeline.analysis.theorems import IN_H, IN_Z, OF_KL, OF_P, tracking, tracks
from pipeline.config.schema import FREE_RUNNING, TEACHER_FORCED
from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.suite import GENERATIVE, MULTIPLE_CHOICE
from pipeline.evaluate.verdict import LOST
from pipeline.store.artifacts import Store
from pipeline.store.records import OK, JobRecord, load_records
from pipeline.study.findings.finished_jobs import default_conditions, jobs_of
from pipeline.study.findings.kept import retained
from pipeline.study.findings.source import Measured, NoResults, Source, Values, commit_of
from pipeline.study.findings.table import Grid, listed
from pipeline.study.findings.versions import versions_of_jobs
from pipeline.tables.choice import Choice
from pipeline.tables.job_columns import DENSE
from pipeline.tables.job_tables import JobTables
from pipeline.tables.read import load

COMMAND = "make demo"
WANTED = tuple((pruner, sparsity) for pruner in ("shortgpt", "wanda") for sparsity in ("0.2", "0.4"))
_SCORES = ("decision", "dense evaluation", "evaluation", "comparison", "dense perplexity", "perplexity")
_STATES = ("decision", "dense trajectory", "trajectory", "teacher forced", "measures")
_LAYERS = ("decision", "dense trajectory", "counterparts", "measures")


def scores(jobs: Sequence[JobRecord], store: Store) -> Values:
    """Return the table of the demo, what a fifth of the blocks keeps, and the range of free-running KL."""
    tables = {job.job: JobTables(job, store) for job in jobs}
    dense = [job for job in load_records(store.jobs) if job.pruner == DENSE and job.status == OK]
    rows = rows_of_jobs(jobs, dense)
    numbers = Numbers(tables.get(job.job) or JobTables(job, store) for row in rows for job in row.jobs)
    lines = []
    for row in rows:
        job = row.first
        forced = numbers.forced[job.job].get(KL)
        own = numbers.means[job.job] | numbers.texts[job.job] | numbers.final[job.job]
        (text,) = numbers.texts[job.job]
        cells = [*(own.get(name) for name in (GENERATIVE, MULTIPLE_CHOICE, text, *COSINES)), forced]
        told = ["" if number is None else f"{number:.3f}" for number in cells]
        lines.append([job.pruner, job.sparsity, f"{100 * (job.achieved or 0):.1f} %", *told])
    names = ["pruner", "sparsity", "removed", "generation", "multiple choice", "ppl", "cos h", "cos z", "cos p", "KL"]
    divergences = [numbers.final[job.job][KL] for job in jobs]
    kept = {"generation": GENERATIVE, "choice": MULTIPLE_CHOICE}
    return {
        "scores": Grid(names, lines),
        "dtype": jobs[0].dtype,
        "free_running": f"{min(divergences):.1f} to {max(divergences):.1f}",
        **{name: _retained(tables[jobs[0].job].comparisons, kind) for name, kind in kept.items()},
    }


def _retained(comparisons: pd.DataFrame | None, kind: str) -> str:
    if comparisons is None:
        raise NoResults(f"the demo's jobs have no comparison with the dense model; run `{COMMAND}` first")
    return retained(comparisons, kind, MEAN)


def time(jobs: Sequence[JobRecord], store: Store) -> Values:
    """Return how long the jobs took. Raises NoResults if they found what others had computed."""
    if not all(job.built for job in jobs):
        raise NoResults(f"the jobs in {store.root} found earlier results; for the time, run `{COMMAND}` without any")
    minutes = sum(job.seconds for job in jobs) / 60
    return {"all": f"about {minutes:.0f} minutes on {jobs[0].origin.get('cores')} cores"}


def protocols(jobs: Sequence[JobRecord], store: Store) -> Values:
    """Return the KL of final states under the two protocols."""
    lines = []
    for job in jobs:
        measures = JobTables(job, store).measures
        if measures is None:
            raise NoResults(f"the demo's jobs have no measures; run `{COMMAND}` first")
        means = mean_over_prompts(measures, ["kl"], ["protocol"]).set_index("protocol")["kl"]
        lines.append([job.pruner, job.sparsity, f"{means[TEACHER_FORCED]:.2f}", f"{means[FREE_RUNNING]:.2f}"])
    lines.sort(key=lambda line: float(line[2]))
    return {"teacher_forced": Grid(["pruner", "sparsity", "KL, teacher-forced", "KL, free-running"], lines)}


def theorems(jobs: Sequence[JobRecord], store: Store) -> Values:
    """Return how well the estimates track at the lower sparsity: least correlations, and layers where one is too low.

    A correlation is too low where its whole interval is: see `pipeline.evaluate.verdict`.
    """
    choice = Choice(jobs[0].model_id, jobs[0].settings_id)
    tracked = tracking(load(store.root, choice).protocol("layer"))
    tracked = tracked[tracked["sparsity"].astype(float) == float(WANTED[0][1])]
    weights, units = (tracked[tracked["pruner"] == pruner] for pruner in ("wanda", "shortgpt"))
    lost = pd.Series(tracks(units), index=units.index) == LOST
    first = units[units["theorem"].isin([IN_H.name, IN_Z.name]) & lost]
    layers = [str(layer) for layer in sorted(first["layer"].unique())]
    least = weights.groupby("theorem")["rank_correlation"].min()
    return {
        "second": f"{least[OF_P.name]:.2f}",
        "third": f"{least[OF_KL.name]:.2f}",
        "first_breaks": listed(layers) or "none",
    }


def source(values: Any, roles: Sequence[str]) -> Source:
    """Return the source of a finding: values of the demo's jobs, which depend on their artifacts of these roles."""

    def read(outputs: Path) -> Measured:
        return read_demo(Store(outputs), default_conditions(), values, roles)

    return Source(COMMAND, read)


def read_demo(store: Store, conditions: Mapping[str, Any], values: Any, roles: Sequence[str]) -> Measured:
    """Return ``values(jobs, store)`` of the demo's jobs under these conditions.

    Raises NoResults if they are missing.
    """
    jobs = jobs_of(store, conditions, WANTED, COMMAND)
    newest = max(jobs, key=lambda job: job.finished)
    stages = versions_of_jobs(jobs, store, roles)
    return Measured(values(jobs, store), stages, commit_of(newest.origin), newest.finished[:10])


SOURCES = {
    "demo": source(scores, _SCORES),
    "demo_time": source(time, _SCORES),
    "protocols": source(protocols, _STATES),
    "theorems": source(theorems, _LAYERS),
}
