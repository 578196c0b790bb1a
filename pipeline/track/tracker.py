"""Records the results of a job in its W&B run, and the outcome of that run."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.track import service
from pipeline.track.given import check_curve, check_file, link, scalars
from pipeline.track.readback import Sent, compare, read_run
from pipeline.track.receipt import Receipt
from pipeline.track.values import brief, key_of, nested, number

if TYPE_CHECKING:
    import pandas as pd
    from wandb import Artifact
    from wandb.sdk.wandb_run import Run

log = logging.getLogger(__name__)

UPLOAD_SECONDS = 300  # for the server to take an artifact
TURN_SECONDS = 5.0  # between the rows of one loop's progress


class Tracker:
    """Receives the results of one job; every method does nothing when there is no run.

    Wrong arguments raise. An error inside W&B does not, since a job must not lose its work to its logging: the
    error is logged and ends up in the receipt, as does a `problem` given at the start.
    """

    def __init__(
        self,
        run: Run | None,
        mode: str,
        config: dict[str, Any],
        reason: str | None = None,
        problem: str | None = None,
        known: Mapping[str, str] | None = None,
    ) -> None:
        self.run = run
        self._mode = mode
        self._reason = reason
        self._sent = Sent(config)
        self._uploads: list[Artifact] = []
        self._problems: list[str] = [problem] if problem else []
        self._known = dict(known or {})
        self._logged = dict(self._known)
        self._turned: dict[str, float] = {}
        self._receipt: Receipt | None = None

    @property
    def receipt(self) -> Receipt:
        """Outcome of the run. Raises RuntimeError before the end of the `with` block."""
        if self._receipt is None:
            raise RuntimeError("the run is still open: its receipt exists after the `with track(...)` block")
        return self._receipt

    def knows(self, section: str, source: str) -> bool:
        """Return whether an earlier job has logged a section of this run from this source."""
        return self._known.get(section) == source

    def begins(self, section: str, source: str) -> bool:
        """Return whether a section has not been logged from this source yet, by this job or an earlier one of its run.

        From now on it has been.
        """
        is_new = self._logged.get(section) != source
        self._logged[section] = source
        return is_new

    def config(self, values: Mapping[str, object]) -> None:
        """Add to the run's config, nested as it is."""
        if (run := self.run) is not None:
            own = nested(values)
            self._attempt("config", lambda: run.config.update(own, allow_val_change=True))
            self._sent.config.update(own)

    def summary(self, values: Mapping[str, float | int | str | None]) -> None:
        """Record final numbers, such as scores. None is left out; NaN and infinities are kept."""
        numbers = scalars(values)
        if (run := self.run) is not None and numbers:
            self._attempt("summary", lambda: run.summary.update(numbers))
            self._sent.summary.update(numbers)

    def history(self, values: Mapping[str, float | int | None]) -> None:
        """Record numbers as of now: a row of the history, from which W&B draws charts, and its summary."""
        numbers = scalars(values)
        if (run := self.run) is not None and numbers:
            self._attempt("history", lambda: run.log(numbers))
            self._sent.rows.update(numbers.keys())
            self.summary(numbers)

    def turn(self, what: str, done: int, total: int) -> None:
        """Record how far a loop is, every few seconds: a fraction. Short loops leave no trace."""
        key, now = f"progress/{key_of(what)}", time.monotonic()
        due = now - self._turned.setdefault(key, now) >= TURN_SECONDS or (done == total and self._sent.rows[key])
        if due and not self._problems:
            self._turned[key] = now
            self.history({key: done / total})

    def curve(self, name: str, frame: pd.DataFrame, step: str) -> None:
        """Record each column of `frame` as the series `name`/column over the x axis `step`, also a column.

        Curves over the same step share the axis. Missing values (NaN) are left out.
        Raises ValueError unless there is one row per step and all columns are numeric.
        """
        if (run := self.run) is None:
            return
        check_curve(name, frame, step)
        import pandas as pd

        series = {column: f"{name}/{column}" for column in frame.columns if column != step}
        rows = [
            {series.get(column, step): number(value) for column, value in row.items() if pd.notna(value)}
            for row in frame.sort_values(step).to_dict("records")
        ]

        def send() -> None:
            run.define_metric(step, hidden=True, summary="none")
            for key in series.values():
                run.define_metric(key, step_metric=step, summary="none")
            for row in rows:
                run.log(row)

        self._attempt(name, send)
        self._sent.points.update(Counter((step, key) for row in rows for key in row if key != step))

    def image(self, name: str, path: Path, caption: str) -> None:
        """Record the image file at `path` (PNG or JPEG). Raises FileNotFoundError if it is missing."""
        if (run := self.run) is None:
            return
        check_file(path)
        import wandb

        self._attempt(name, lambda: run.log({name: wandb.Image(str(path), caption=caption)}))
        self._sent.media.add(name)

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Record a table to look at, without its index; for thousands of rows prefer `artifact`."""
        if (run := self.run) is None:
            return
        import wandb

        columns: list[str | int] = [str(column) for column in frame.columns]
        # Rows of plain lists: several times faster in wandb than a data frame, and missing cells stay empty.
        data = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
        self._attempt(name, lambda: run.log({name: wandb.Table(columns=columns, data=data)}))
        self._sent.media.add(name)

    def artifact(self, name: str, type: str, files: Sequence[Path], metadata: Mapping[str, object]) -> None:
        """Record files as one versioned artifact; `name` takes letters, digits, dots, dashes and underscores.

        Files are hard-linked into the run's folder where that is possible, so they may be deleted or replaced
        before the run is sent but not rewritten in place. Raises FileNotFoundError if one is missing.
        """
        if (run := self.run) is None:
            return
        for path in files:
            check_file(path)
        if len({path.name for path in files}) != len(files):
            raise ValueError(f"artifact {name}: two files have the same name")
        import wandb

        plain = json.loads(json.dumps(dict(metadata), default=str))
        artifact = wandb.Artifact(name, type=type, metadata=plain)
        folder = _directory(run) / "artifacts" / name

        def send() -> None:
            for path in files:
                artifact.add_file(str(link(path, folder)), name=path.name, policy="immutable")
            run.log_artifact(artifact)
            if self._mode == "online":
                self._uploads.append(artifact)

        self._attempt(name, send)
        if self._mode == "offline":  # online, artifacts go to the server and leave no trace in the log
            self._sent.artifacts[name] = {path.name: path.stat().st_size for path in files}

    def _attempt(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # any failure of the library or the disk: the job goes on
            self._report(f"{what} was not logged: {brief(error)}")

    def _report(self, problem: str) -> None:
        log.warning("W&B: %s", problem)
        self._problems.append(problem)

    def close(self, exit_code: int, error: BaseException | None = None) -> None:
        """Finish the run, read it back and write the receipt; raises nothing but interruptions."""
        if (run := self.run) is None:
            problem = "; ".join(self._problems) or None
            verified = False if problem else None
            self._receipt = Receipt("", "", None, self._mode, None, exit_code, verified, problem, None)
            return
        if error is not None:
            self.summary({"error": brief(error)})
        elif run.resumed:
            self._attempt("summary", lambda: _forget_error(run))
        for artifact in self._uploads:
            self._attempt(f"artifact {artifact.name}", partial(artifact.wait, timeout=UPLOAD_SECONDS))
        directory, unsent = _directory(run), self._mode == "offline"
        try:
            run.finish(exit_code=exit_code)
        except Exception as failure:  # a server that went away, or a dead writer
            unsent = True
            self._report(f"the run did not finish: {brief(failure)}")
            if service.is_gone(failure):
                service.let_go()
        try:
            lost = compare(self._sent, read_run(directory), exit_code)
        except Exception as failure:
            lost = brief(failure)
        if lost:
            self._report(f"run {run.id} is incomplete on disk: {lost}")
        # A writer that dies early leaves no log.
        command = f"wandb sync {shlex.quote(str(directory))}" if unsent and any(directory.glob("*.wandb")) else None
        if self._mode == "online" and not self._problems:
            _supersede_offline(directory, run.id)
        if command:
            reason = f" ({self._reason})" if self._reason else ""
            log.info("W&B run %s is stored on disk%s; to upload it: %s", run.id, reason, command)
        self._receipt = Receipt(
            run_id=run.id,
            group=run.group,
            directory=directory,
            mode=self._mode,
            url=run.url if self._mode == "online" else None,
            exit_code=exit_code,
            verified=not self._problems,
            problem="; ".join(self._problems) or None,
            sync_command=command,
            logged=dict(self._logged),
        )


def _directory(run: Run) -> Path:
    return Path(run.dir).parent


def _forget_error(run: Run) -> None:
    """Remove the error of an earlier job, which failed, from the summary of a run that has now ended well."""
    if run.summary.get("error") is not None:
        del run.summary["error"]


def _supersede_offline(directory: Path, run_id: str) -> None:
    """Mark runs of this id that were kept on this disk as sent: the server has all that they hold from this one."""
    for path in directory.parent.glob(f"offline-run-*/run-{run_id}.wandb"):
        path.with_name(f"{path.name}.synced").touch()
