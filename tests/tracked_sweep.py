"""A sweep of two jobs as W&B has it: their runs, the dense model's, and the one with the figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from conftest import TINY
from hydra import compose, initialize_config_dir

from pipeline.config.choices import CONF
from pipeline.plot.drawing import draw
from pipeline.run.compose import resolve
from pipeline.run.job import run_job
from pipeline.run.tracking import track_figures
from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord

SWEEP = "20260101-120000-000000"
JOBS = ("pruner=shortgpt sparsity=0.5", "pruner=wanda sparsity=2:4")


def run_one(root: Path, place: str, words: list[str]) -> JobRecord:
    """A job of a sweep if its ``place`` is a folder in the sweep's, else a command of its own."""
    base = [word for word in TINY if not word.startswith("wandb")]
    given = [*base, *words, f"outputs={root}", "wandb.mode=offline", "wandb.project=mine"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = resolve(compose("config", overrides=given))
    folder = root / "runs" / place
    folder.mkdir(parents=True)
    stages = tuple(stage for stage in settings.stages if stage != "plot")
    record = run_job(replace(settings, stages=stages), place.split("/", maxsplit=1)[0], folder)
    assert record.status == "ok", record.error
    return record


def run_sweep(root: Path) -> list[JobRecord]:
    """The jobs of the sweep, all of whose runs are kept on disk."""
    jobs = [run_one(root, f"{SWEEP}/{place}", job.split()) for place, job in enumerate(JOBS)]
    page = root / "page.html"
    page.write_text("<p>results</p>")
    track_figures(jobs, draw(root, ("fig01",)), page, Store(root), SWEEP)
    return jobs
