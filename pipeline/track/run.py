"""Tracks a job as a W&B run: config, progress, scores, curves, figures, tables, artifacts and console.

Without a key or a network the run is kept on disk and can be sent later. Once finished it is read back and
checked. If no run can be opened at all, the job only loses its tracking. wandb is imported only when a run starts.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.common.garbage import importing
from pipeline.common.steps import watched_by
from pipeline.track import service
from pipeline.track.agent import AgentRun, agent_run
from pipeline.track.connection import base_url, prepare_import, resolve_mode
from pipeline.track.console import lines_to
from pipeline.track.names import folder_of_runs
from pipeline.track.receipt import logged_before
from pipeline.track.run_ids import is_deleted, replace_deleted, reserved, run_id
from pipeline.track.tracker import Tracker
from pipeline.track.values import brief, nested

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

log = logging.getLogger(__name__)

INIT_SECONDS = 30.0  # for a server to accept the run; after that it is kept offline
FINISH_SECONDS = 300.0  # for the last uploads; what is left can be sent later
NAME_LENGTH, TAG_LENGTH = 128, 64  # W&B's limits
STATS_SECONDS = 5.0  # between samples of the machine's load; many jobs are shorter than W&B's own interval
Mode = Literal["online", "offline"]


@dataclass(frozen=True)
class RunSpec:
    """Description of a run: files go under `outputs`/wandb; `mode` is one of `pipeline.track.MODES`.

    `group` names the sweep. `config` is logged nested, whether it is or has dotted keys, and without secrets. A run of
    a `job` has an id of its own in this outputs folder, or the `id` that it is given: it is resumed if it is there.
    `earlier` is what the job's record keeps of its last run (`Receipt.facts`).
    """

    outputs: Path
    mode: str
    project: str
    entity: str | None
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: Mapping[str, object]
    notes: str | None = None
    job: str = ""
    id: str | None = None
    earlier: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def track(spec: RunSpec) -> Iterator[Tracker]:
    """Track a job as its own W&B run within the block; on leaving it finishes, with exit code 1 if an exception passes.

    What is logged within the block, and how far its loops are, is part of the run. Under an agent of a W&B sweep it is
    the run that the agent has asked for, in its project, grouped by the sweep. Falls back to an offline run, with a
    warning, when the server cannot be used; if not even that can be opened, nothing is recorded, and the receipt says
    why. Raises ValueError for an unknown mode.
    """
    connection = resolve_mode(spec.mode)
    if connection.mode == "disabled":
        if connection.reason:
            log.warning("W&B: nothing is logged: %s", connection.reason)
        yield from _closing(Tracker(None, "disabled", {}))
        return
    with _local_storage(spec.outputs.resolve()), ExitStack() as held:
        tracker = _start(spec, connection.mode, connection.reason, held)
        with lines_to(tracker.run), watched_by(tracker.turn):
            yield from _closing(tracker)


def _closing(tracker: Tracker) -> Iterator[Tracker]:
    try:
        yield tracker
    except BaseException as error:
        tracker.close(1, error)
        raise
    tracker.close(0)


def _start(spec: RunSpec, mode: str, reason: str | None, held: ExitStack) -> Tracker:
    """Open the run, online if `mode` says so and the server takes it, else offline, else not at all."""
    config = nested(spec.config)
    try:
        agent = agent_run()
        config = _beside(config, agent.values) if agent else config
        outputs = spec.outputs.resolve()
        own = agent.run_id if agent else held.enter_context(reserved(outputs, run_id(outputs, spec.job, spec.id)))
        if mode == "online":
            run, own, reason = _open_online(spec, own, config, agent)
            if run is not None:
                return Tracker(run, "online", config, known=logged_before(spec.earlier, own, "online"))
        if mode == "online" or (spec.mode == "online" and reason):
            log.warning("W&B: no online run (%s); the run is stored on disk", reason)
        run = _open(spec, "offline", own, config, agent)
        return Tracker(run, "offline", config, reason, known=logged_before(spec.earlier, own, "offline"))
    except Exception as error:  # no disk space, no permission, a broken installation: the job is worth more
        problem = f"cannot start a run ({brief(error)})"
        log.warning("W&B: %s; the job continues without one", problem)
        return Tracker(None, "offline", config, problem=problem)


def _beside(config: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of an agent's run. The sweep's own values keep their keys: its run is found by them.

    Where one is the choice of a group, such as ``pruner``, the settings of that group are in ``pruner_settings``.
    """
    moved = {f"{key}_settings": config[key] for key in values if isinstance(config.get(key), Mapping)}
    return {**config, **moved, **values}


def _open_online(
    spec: RunSpec, own: str, config: dict[str, Any], agent: AgentRun | None
) -> tuple[Run | None, str, str | None]:
    """Open an online run. Returns None without one, the run's id, and why there is none.

    An id that the server has deleted is replaced, once.
    """
    reason = None
    for last in (False, True):
        before = _folders(spec, own)
        try:
            return _open(spec, "online", own, config, agent), own, None
        except Exception as error:  # key refused, server unwell, time is up: keep the run on disk instead
            reason = brief(error)
            # The writing process keeps the id of the refused run for itself.
            service.let_go()
            # An earlier run of this id has folders, too.
            for folder in _folders(spec, own) - before:
                shutil.rmtree(folder, ignore_errors=True)
            if last or agent or not is_deleted(error):
                break
            deleted, own = own, replace_deleted(spec.outputs.resolve(), own)
            log.warning("W&B: the run %s was deleted on the server; a new one is logged: %s", deleted, own)
    return None, own, reason


def _folders(spec: RunSpec, own: str) -> set[Path]:
    # Of two runs in one second, the second folder has a number behind.
    name = re.compile(rf"run-[\d_]+-{re.escape(own)}(-\d+)?")
    return {path for path in folder_of_runs(spec.outputs.resolve()).glob("run-*") if name.fullmatch(path.name)}


def _open(spec: RunSpec, mode: Mode, own: str, config: dict[str, Any], agent: AgentRun | None) -> Run:
    """Open a run. A writing process that died after an earlier run of this process is replaced."""
    try:
        return _init(spec, mode, own, config, agent)
    except Exception as error:
        if not service.is_gone(error):
            raise
        service.let_go()
        return _init(spec, mode, own, config, agent)


def _init(spec: RunSpec, mode: Mode, own: str, config: dict[str, Any], agent: AgentRun | None) -> Run:
    folder = folder_of_runs(spec.outputs.resolve()).parent
    folder.mkdir(parents=True, exist_ok=True)
    prepare_import()
    # The first run imports more.
    with importing():
        import wandb

        # An agent has put its run, project and entity into the environment, where wandb finds them.
        return wandb.init(
            dir=str(folder),
            mode=mode,
            id=None if agent else own,
            resume=None if agent or "WANDB_RESUME" in os.environ or not (spec.job or spec.id) else "allow",
            project=None if agent else spec.project,
            entity=None if agent else spec.entity,
            name=spec.name[:NAME_LENGTH],
            notes=spec.notes,
            group=(agent.sweep if agent else spec.group)[:NAME_LENGTH],
            job_type=spec.job_type[:TAG_LENGTH],
            tags=tuple(dict.fromkeys(tag[:TAG_LENGTH] for tag in spec.tags if tag)),
            config=config,
            allow_val_change=True,  # of a run that is resumed
            reinit="finish_previous",  # otherwise a run left open would be returned again
            settings=wandb.Settings(base_url=base_url(), **_settings()),
        )


def _settings() -> dict[str, Any]:
    """Return settings of wandb for every run, without those that the environment sets itself."""
    ours = {
        "console": "off",  # it would hold secrets: `pipeline.track.console` writes what is logged
        "disable_code": True,
        "disable_git": True,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
        "init_timeout": INIT_SECONDS,
        "save_code": False,
        "silent": True,
        "symlink": False,  # jobs that run side by side would fight over wandb/latest-run
        "use_dot_wandb": False,
        "x_disable_meta": True,  # it holds the command line, which may hold a key
        "x_save_requirements": False,
        "x_stats_sampling_interval": STATS_SECONDS,
    }
    return {name: value for name, value in ours.items() if f"WANDB_{name.upper()}" not in os.environ}


@contextmanager
def _local_storage(outputs: Path) -> Iterator[None]:
    """Keep W&B's staged files and logs under `outputs` within the block, unless the environment names a place."""
    names = {"WANDB_DATA_DIR": "data", "WANDB_CACHE_DIR": "cache"}
    ours = [name for name in names if name not in os.environ]
    os.environ.update({name: str(outputs / "wandb" / names[name]) for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
