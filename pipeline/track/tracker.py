"""Records the results of a job in its W&B run, and the outcome of that run."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.track import service
from pipeline.track.readback import Sent, compare, read_run
from pipeline.track.values import brief, number

if TYPE_CHECKING:
    import pandas as pd
    from wandb import Artifact
    from wandb.sdk.wandb_run import Run

log = logging.getLogger(__name__)

UPLOAD_SECONDS = 300  # for the server to take an artifact


@dataclass(frozen=True)
class Receipt:
    """Outcome of a run.

    `group` is the sweep by which W&B finds it. `directory` holds its files, `url` is set online, and `sync_command`
    sends a run that is only on disk. `verified` says whether the finished run was read back complete (None when
    disabled); if it was not, `problem` says what is wrong.
    """

    run_id: str
    group: str
    directory: Path | None
    mode: str
    url: str | None
    exit_code: int
    verified: bool | None
    problem: str | None
    sync_command: str | None


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
    ) -> None:
        self._run = run
        self._mode = mode
        self._reason = reason
        self._sent = Sent(config)
        self._uploads: list[Artifact] = []
        self._problems: list[str] = [problem] if problem else []
        self._receipt: Receipt | None = None

    @property
    def receipt(self) -> Receipt:
        """Outcome of the run. Raises RuntimeError before the end of the `with` block."""
        if self._receipt is None:
            raise RuntimeError("the run is still open: its receipt exists after the `with track(...)` block")
        return self._receipt

    def summary(self, values: Mapping[str, float | int | str | None]) -> None:
        """Record final numbers, such as scores. None is left out; NaN and infinities are kept."""
        numbers = {key: _scalar(key, value) for key, value in values.items() if value is not None}
        if (run := self._run) is not None and numbers:
            self._attempt("summary", lambda: run.summary.update(numbers))
            self._sent.summary.update(numbers)

    def curve(self, name: str, frame: pd.DataFrame, step: str) -> None:
        """Record each column of `frame` as the series `name`/column over the x axis `step`, also a column.

        Curves over the same step share the axis. Missing values (NaN) are left out.
        Raises ValueError unless there is one row per step and all columns are numeric.
        """
        if (run := self._run) is None:
            return
        _check_curve(name, frame, step)
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
        if (run := self._run) is None:
            return
        _check_file(path)
        import wandb

        self._attempt(name, lambda: run.log({name: wandb.Image(str(path), caption=caption)}))
        self._sent.media.add(name)

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Record a table to look at, without its index; for thousands of rows prefer `artifact`."""
        if (run := self._run) is None:
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
        if (run := self._run) is None:
            return
        for path in files:
            _check_file(path)
        if len({path.name for path in files}) != len(files):
            raise ValueError(f"artifact {name}: two files have the same name")
        import wandb

        plain = json.loads(json.dumps(dict(metadata), default=str))
        artifact = wandb.Artifact(name, type=type, metadata=plain)
        folder = _directory(run) / "artifacts" / name

        def send() -> None:
            for path in files:
                artifact.add_file(str(_link(path, folder)), name=path.name, policy="immutable")
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
        if (run := self._run) is None:
            problem = "; ".join(self._problems) or None
            verified = False if problem else None
            self._receipt = Receipt("", "", None, self._mode, None, exit_code, verified, problem, None)
            return
        if error is not None:
            self.summary({"error": brief(error)})
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
        )


def _directory(run: Run) -> Path:
    return Path(run.dir).parent


def _scalar(key: str, value: object) -> float | int | str:
    if isinstance(value, str):
        return value
    try:
        return number(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"summary {key}: {value!r} is neither a number nor a string") from error


def _check_curve(name: str, frame: pd.DataFrame, step: str) -> None:
    if step not in frame.columns:
        raise ValueError(f"curve {name}: no step column {step!r} among {list(frame.columns)}")
    if frame[step].isna().any() or frame[step].duplicated().any():
        raise ValueError(f"curve {name}: {step!r} must have one row per value; aggregate first")
    if texts := [column for column in frame.columns if frame[column].dtype.kind not in "biuf"]:
        raise ValueError(f"curve {name}: columns {texts} are not numeric; drop them first")


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} to log")


def _link(path: Path, folder: Path) -> Path:
    """Return a hard link to `path` in `folder`, or a copy where the file system has no hard links."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    target.unlink(missing_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)
    return target
