"""The running command and its jobs: where outcomes are left, and what is shown at its end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pipeline.common.errors import plain
from pipeline.common.heartbeat import in_words, working
from pipeline.common.terminal import BAD, columns_here, painted
from pipeline.config.schema import PLOT, FiguresConfig
from pipeline.config.types import converted
from pipeline.run.drawing_process import draw_and_write, in_drawing_process
from pipeline.store.artifacts import Store
from pipeline.store.records import FAILED, INTERRUPTED, OK, OUTCOME, SKIPPED, TRACEBACK, JobRecord, load_records

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn


# Least number of characters for a name or a cause in a line.
_LEAST = 20
_ORDER = (OK, FAILED, INTERRUPTED, SKIPPED)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job: its number in this command, its record, a remark of its launcher, and whether that told it."""

    number: int
    record: JobRecord
    note: str = ""
    told: bool = False


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
        figures: Any = OmegaConf.to_container(config.figures, resolve=True)
        hints = get_type_hints(FiguresConfig, include_extras=True)
        SweepSummary.figures = FiguresConfig(**{key: converted(hints[key], value) for key, value in figures.items()})


def close(outcomes: Sequence[Outcome], folder: Path, outputs: Path, stopped: bool = False) -> int:
    """Draw, then print the scores, what they mean, where everything is, and the failures. Returns the exit status.

    A command that was ``stopped`` draws nothing. Errors in showing or drawing are printed, not raised.
    """
    # Deferred: this module is imported for every command line, also for one that is refused.
    from pipeline.run.summary import show_places, show_results
    from pipeline.tables.job_tables import JobTables

    if not outcomes:
        print("no job left a record; see the messages above")
        return 1
    jobs = [outcome.record for outcome in outcomes]
    finished = [job for job in jobs if job.status == OK]
    status = 1 if len(finished) < len(jobs) else 0
    if SweepSummary.several:
        show_jobs(outcomes)
    store = Store(outputs)
    plotting = [job for job in finished if PLOT in job.config.get("stages", ())]
    try:
        if plotting and not stopped:
            print("drawing the figures and the report", file=sys.stderr, flush=True)
            with working("figures and report", forks=True):
                _plot(plotting, folder, store)
    except Exception as error:
        print(painted(f"not everything could be drawn: {plain(error)}", BAD, sys.stdout))
        status = 1
    try:
        print()
        if finished:
            show_results([JobTables(job, store) for job in finished], store)
            print()
        show_places(jobs, store)
    except Exception as error:
        print(painted(f"not everything could be shown: {plain(error)}", BAD, sys.stdout))
        status = 1
    _show_failures(outcomes, folder)
    return status


def show_jobs(outcomes: Sequence[Outcome]) -> None:
    """Print how many jobs ended in which way, after a line for each one that its launcher has not told."""
    for outcome in outcomes:
        if not outcome.told:
            line = line_of(f"job {outcome.number} {name_of(outcome.record)}", outcome.record, outcome.note)
            print(line if outcome.record.status == OK else painted(line, BAD, sys.stdout))
    counts = Counter(outcome.record.status for outcome in outcomes)
    print(f"{len(outcomes)} jobs: {', '.join(f'{counts[status]} {status}' for status in _ORDER if counts[status])}")


def name_of(job: JobRecord) -> str:
    """Return what a job is called in lines for people: its model and the label of its variant."""
    # Deferred: this module is imported for every command line.
    from pipeline.tables.job_columns import label_of

    return f"{job.model}, {label_of(job) if job.variant_id else f'{job.pruner} {job.sparsity}'}"


def line_of(who: str, job: JobRecord, note: str = "", left: str = "") -> str:
    """Say in one line how a job ended, cut to the width of the terminal; causes are told in full at the end."""
    found = ", all found" if job.status == OK and not job.built else ""
    end = f": {job.status} after {in_words(job.seconds)}{found}{f' ({note})' if note else ''}"
    cause = f": {job.error}" if job.error else ""
    width = columns_here()
    # The beginning of a cause is worth more than the middle of a long name, and a whole name more than the time left.
    room = width - len(end) - min(len(cause), _LEAST)
    if len(who) > room - len(left):
        left = ""
    line = f"{_shortened(who, max(room, _LEAST))}{end}{cause}{left}"
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _shortened(name: str, room: int) -> str:
    """Return a name without its middle where it is too long: it begins with the job and ends with the variant."""
    return name if len(name) <= room else f"{name[: room // 2]}…{name[room // 2 + 1 - room :]}"


def own_seconds(job: JobRecord) -> float:
    """Return the seconds that went into what a job computed for itself, without what it computed for all jobs."""
    own = {"/".join(Path(path).parts[-2:]) for role, path in job.artifacts.items() if not role.startswith("dense ")}
    return sum(float(cost.get("seconds", 0)) for name, cost in job.cost.items() if name in own)


def _show_failures(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Print causes in full, once for all jobs that share one, and what to do next."""
    from pipeline.run.summary import shown

    bad = [outcome.record for outcome in outcomes if outcome.record.status != OK]
    shared = Counter((job.status, job.error) for job in bad)
    for (status, error), count in shared.items():
        job = next(job for job in bad if (job.status, job.error) == (status, error))
        who = f"pruner={job.pruner} sparsity={job.sparsity}" if count == 1 else f"{count} jobs"
        print(painted(f"{status}: {who}: {error}", BAD, sys.stdout))
    if not bad:
        return
    traces = " ".join(sorted(shown(path.absolute()) for path in folder.rglob(TRACEBACK)))
    print(f"tracebacks: {traces}" if traces else f"logs: {shown(folder.absolute())}")
    print("Run the same command again to compute only what is missing.")


def _plot(jobs: Sequence[JobRecord], folder: Path, store: Store) -> None:
    """Draw the figures of all jobs and write the page that shows everything; for a sweep, log them as a separate run.

    That run has the sweep's curves over sparsity, too. Nothing is drawn while there are neither scores nor measures.
    """
    from pipeline.run.tracking import track_figures
    from pipeline.tables.stored import DamagedTable, NoTables

    try:
        # Another sweep on the same folder may be closing too.
        with store.alone("figures"):
            drawn, page = in_drawing_process(draw_and_write, store.root, SweepSummary.figures)
        for figure in drawn:
            if figure.failed:
                print(f"figure {figure.name} is not drawn: {figure.missing}")
    except DamagedTable:
        raise
    except NoTables:
        return
    if SweepSummary.several:
        track_figures(jobs, drawn, page, store, folder.name)
