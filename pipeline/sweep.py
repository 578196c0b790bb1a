"""What a sweep is to its jobs and its user: where outcomes are left, and the table at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pipeline.records import OK, JobRecord, load_records
from pipeline.store import Store

OUTCOME, TRACEBACK = "outcome.json", "traceback.txt"


class SweepSummary(Callback):
    """Remembers where the jobs of this command left their outcomes."""

    folder: Path | None = None
    outputs: Path = Path("outputs")

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._remember(config, config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._remember(config, config.hydra.sweep.dir)

    @staticmethod
    def _remember(config: DictConfig, folder: str) -> None:
        SweepSummary.folder, SweepSummary.outputs = Path(folder), Path(config.outputs)


def outcomes(folder: Path) -> list[JobRecord]:
    """Records of the jobs of one command, in the order in which they ended."""
    return load_records(folder, f"**/{OUTCOME}")


def close(folder: Path, store: Store) -> int:
    """Print the sweep's table, its failures and where everything is. Returns the exit status."""
    # Deferred: this module is imported for every command line, also for one that only gets a refusal.
    from pipeline.summary import show_places, show_scores, shown

    jobs = outcomes(folder)
    if not jobs:
        print("no job left an outcome; see the messages above")
        return 1
    if len(jobs) > 1:
        show_scores(jobs, store, title="Sweep")
    failed = [job for job in jobs if job.status != OK]
    for job in failed:
        print(f"{job.status}: pruner={job.pruner} sparsity={job.sparsity}: {job.error}")
    if failed:
        traces = " ".join(sorted(shown(path.absolute()) for path in folder.rglob(TRACEBACK)))
        print(f"full errors: {traces}\nThe same command repeats only what is missing.")
    if any(job.status == OK for job in jobs):
        from pipeline.report import write

        write(store.root)
    show_places(jobs, store)
    return 1 if failed else 0
