"""What a sweep is to its jobs and its user: where outcomes are left, and the table at its end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pipeline.records import OK, JobRecord, load_records
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.figures import FigureResult
    from pipeline.tracking import Tracker

PLOT = "plot"
OUTCOME, TRACEBACK = "outcome.json", "traceback.txt"


class SweepSummary(Callback):
    """Remembers where the jobs of this command left their outcomes."""

    folder: Path | None = None
    outputs: Path = Path("outputs")
    figures: tuple[str, ...] | None = None
    several: bool = False

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._remember(config, config.hydra.run.dir, several=False)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._remember(config, config.hydra.sweep.dir, several=True)

    @staticmethod
    def _remember(config: DictConfig, folder: str, several: bool) -> None:
        SweepSummary.folder, SweepSummary.outputs, SweepSummary.several = Path(folder), Path(config.outputs), several
        SweepSummary.figures = None if config.figures is None else tuple(config.figures)


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
    if plotting := [job for job in jobs if job.status == OK and PLOT in job.config.get("stages", ())]:
        _plot(plotting[-1], folder, store)
    show_places(jobs, store)
    return 1 if failed else 0


def _plot(job: JobRecord, folder: Path, store: Store) -> None:
    """Figures of all jobs and the page that shows everything; for a sweep, logged as a run of its own.

    Without scores and measures yet there is nothing to draw.
    """
    from pipeline import figures, report
    from pipeline.figures.tables import NoTables
    from pipeline.tracking import RunSpec, track

    with suppress(NoTables):
        # Another sweep on the same folder may be closing too.
        with store.alone("figures"):
            drawn = figures.draw(store.root, SweepSummary.figures)
            page = report.write(store.root, figures=SweepSummary.figures)
        if not SweepSummary.several:
            return
        spec = RunSpec(
            outputs=store.root,
            mode=job.config["wandb.mode"],
            project=job.config["wandb.project"],
            entity=job.config["wandb.entity"],
            name=f"figures of {folder.name}",
            group=folder.name,
            job_type="figures",
            tags=(job.model, "figures"),
            config={"settings": job.settings, "states": job.states},
        )
        with track(spec) as tracker:
            log_figures(tracker, drawn)
            tracker.artifact(
                f"report-{folder.name}", "report", [page], {"settings": job.settings, "states": job.states}
            )


def log_figures(tracker: Tracker, drawn: Sequence[FigureResult]) -> None:
    """The pictures of figures, with their captions."""
    for figure in drawn:
        for path in figure.paths:
            if path.suffix == ".png":
                tracker.image(f"figures/{figure.name}", path, figure.caption)
