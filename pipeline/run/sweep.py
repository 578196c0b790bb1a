"""The running command and its jobs: where outcomes are left, and what is shown at its end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from pipeline.common.errors import plain
from pipeline.config.schema import PLOT, FiguresConfig
from pipeline.store.artifacts import Store
from pipeline.store.records import FAILED, INTERRUPTED, OK, OUTCOME, SKIPPED, TRACEBACK, JobRecord, load_records

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn


# Characters per line where the output is not a terminal, and the least number for a cause in it.
_WIDTH, _LEAST = 160, 20
_COLUMNS = ("job", "status", "model", "variant", "task", "seconds", "computed stages, or cause")
_ORDER = (OK, FAILED, INTERRUPTED, SKIPPED)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job of this command: its number, its record, and a remark of its launcher."""

    number: int
    record: JobRecord
    note: str = ""


class SweepSummary(Callback):
    """State of this command: where its jobs leave their files, and how they ended."""

    folder: ClassVar[Path | None] = None
    outputs: ClassVar[Path] = Path("outputs")
    figures: ClassVar[FiguresConfig | None] = None
    several: ClassVar[bool] = False
    outcomes: ClassVar[list[Outcome]] = []

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._remember(config, config.hydra.run.dir, several=False)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._remember(config, config.hydra.sweep.dir, several=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Take the outcome of a single job. Jobs of a sweep end in other processes, and their launcher reports them."""
        if not SweepSummary.several:
            SweepSummary.outcomes = [Outcome(0, job_return.return_value)]

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.gather()

    @staticmethod
    def gather() -> None:
        """Take the outcomes of jobs from their folders, where a launcher of a Hydra plugin has run them."""
        if SweepSummary.outcomes or SweepSummary.folder is None:
            return
        for place in sorted(SweepSummary.folder.glob(f"*/{OUTCOME}"), key=lambda path: (len(path.parent.name), path)):
            SweepSummary.outcomes += [
                Outcome(len(SweepSummary.outcomes), record) for record in load_records(place.parent, OUTCOME)
            ]

    @staticmethod
    def _remember(config: DictConfig, folder: str, several: bool) -> None:
        SweepSummary.folder, SweepSummary.outputs, SweepSummary.several = Path(folder), Path(config.outputs), several
        chosen = config.figures.select
        SweepSummary.figures = FiguresConfig(**{**config.figures, "select": None if chosen is None else list(chosen)})


def close(outcomes: Sequence[Outcome], folder: Path, outputs: Path, stopped: bool = False) -> int:
    """Print how every job ended, the scores, the failures and where everything is. Returns the exit status.

    A command that was ``stopped`` draws nothing. Errors in showing or drawing are printed, not raised.
    """
    # Deferred: this module is imported for every command line, also for one that is refused.
    from pipeline.run.summary import show_places, show_scores
    from pipeline.tables.job_tables import JobTables

    if not outcomes:
        print("no job left a record; see the messages above")
        return 1
    jobs = [outcome.record for outcome in outcomes]
    finished = [job for job in jobs if job.status == OK]
    status = 1 if len(finished) < len(jobs) else 0
    if SweepSummary.several:
        show_jobs(outcomes)
    try:
        store = Store(outputs)
        if len(jobs) > 1 and finished:
            show_scores([JobTables(job, store) for job in finished], store, title="Sweep")
        plotting = [job for job in finished if PLOT in job.config.get("stages", ())]
        if plotting and not stopped:
            _plot(plotting, folder, store)
        show_places(jobs, store)
    except Exception as error:
        print(f"not everything could be shown or drawn: {plain(error)}")
        status = 1
    _show_failures(outcomes, folder)
    return status


def show_jobs(outcomes: Sequence[Outcome]) -> None:
    """Print a line for each job: how it ended, its names, how long it took, and why it failed or what it computed."""
    # Deferred: this module is imported for every command line.
    from pipeline.tables.job_columns import label_of

    rows = []
    for outcome in outcomes:
        job = outcome.record
        what = _computed(job) if job.status == OK else job.error or "see its log"
        task = str(job.config.get("task.name", ""))
        name = label_of(job) if job.variant_id else f"{job.pruner} {job.sparsity}"
        who = [str(outcome.number), job.status, job.model, name, task, f"{job.seconds:.1f}"]
        rows.append([*who, f"({outcome.note}) {what}" if outcome.note else what])
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, markup=False, highlight=False)
    # Long texts are cut to keep each job on one line.
    widths = [max(len(cell) for cell in column) for column in zip(*rows, _COLUMNS, strict=True)][:-1]
    room = max(console.width - sum(widths) - 3 * len(_COLUMNS) - 1, _LEAST)
    table = Table(title="Jobs", title_justify="left", title_style="bold")
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in ("job", "seconds") else "left", no_wrap=True)
    for *who, what in rows:
        table.add_row(*who, what if len(what) <= room else f"{what[: room - 1]}…")
    console.print(table)
    counts = Counter(outcome.record.status for outcome in outcomes)
    print(f"{len(outcomes)} jobs: {', '.join(f'{counts[status]} {status}' for status in _ORDER if counts[status])}")


def _computed(job: JobRecord) -> str:
    """Return the stages that a job has computed itself, in words."""
    counts = Counter(job.built)
    named = [f"{stage} ×{count}" if count > 1 else stage for stage, count in counts.items()]
    return ", ".join(named) or "nothing: all results were stored already"


def _show_failures(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Print causes in full, once for all jobs that share one, and what to do next."""
    from pipeline.run.summary import shown

    bad = [outcome.record for outcome in outcomes if outcome.record.status != OK]
    shared = Counter((job.status, job.error) for job in bad)
    for (status, error), count in shared.items():
        job = next(job for job in bad if (job.status, job.error) == (status, error))
        who = f"pruner={job.pruner} sparsity={job.sparsity}" if count == 1 else f"{count} jobs"
        print(f"{status}: {who}: {error}")
    if not bad:
        return
    traces = " ".join(sorted(shown(path.absolute()) for path in folder.rglob(TRACEBACK)))
    print(f"tracebacks: {traces}" if traces else f"logs: {shown(folder.absolute())}")
    print("Run the same command again to compute only what is missing.")


def _plot(jobs: Sequence[JobRecord], folder: Path, store: Store) -> None:
    """Draw the figures of all jobs and write the page that shows everything; for a sweep, log them as a separate run.

    That run has the sweep's curves over sparsity, too. Nothing is drawn while there are neither scores nor measures.
    """
    from pipeline import report
    from pipeline.plot.drawing import cores, draw
    from pipeline.run.tracking import track_figures
    from pipeline.tables.stored import DamagedTable, NoTables

    try:
        # Another sweep on the same folder may be closing too.
        with store.alone("figures"):
            drawn = draw(store.root, form=SweepSummary.figures, processes=cores())
            page = report.write(store.root, drawn=drawn)
        for figure in drawn:
            if figure.failed:
                print(f"figure {figure.name} is not drawn: {figure.missing}")
    except DamagedTable:
        raise
    except NoTables:
        return
    if SweepSummary.several:
        track_figures(jobs, drawn, page, store, folder.name)
