"""Tracks a job as a W&B run: config, scores, curves, figures, tables and artifacts.

Without a key or a network the run is kept on disk and can be sent later. Once finished it is read back and
checked. If no run can be opened at all, the job only loses its tracking. wandb is imported only when a run starts.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.track import service
from pipeline.track.agent import AgentRun, agent_run
from pipeline.track.connection import base_url, prepare_import, resolve_mode
from pipeline.track.tracker import Tracker
from pipeline.track.values import brief, flatten

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

log = logging.getLogger(__name__)

INIT_SECONDS = 30.0  # for a server to accept the run; after that it is kept offline
FINISH_SECONDS = 300.0  # for the last uploads; what is left can be sent later
NAME_LENGTH, TAG_LENGTH = 128, 64  # W&B's limits


@dataclass(frozen=True)
class RunSpec:
    """Description of a run: files go under `outputs`/wandb; `mode` is one of `pipeline.track.MODES`.

    `group` names the sweep. `config` may be nested: it is logged flat, with dotted keys and without secrets. The name
    of each component is also logged under its group (`pruner`), since W&B neither filters nor plots by keys with dots.
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


@contextmanager
def track(spec: RunSpec) -> Iterator[Tracker]:
    """Track a job as its own W&B run within the block; on leaving it finishes, with exit code 1 if an exception passes.

    Under an agent of a W&B sweep it is the run that the agent has asked for, in its project, grouped by the sweep.
    Falls back to an offline run, with a warning, when the server cannot be used; if not even that can be opened,
    nothing is recorded, and the receipt says why. Raises ValueError for an unknown mode.
    """
    connection = resolve_mode(spec.mode)
    if connection.mode == "disabled":
        if connection.reason:
            log.warning("W&B: nothing is logged: %s", connection.reason)
        yield from _closing(Tracker(None, "disabled", {}))
        return
    with _local_storage(spec.outputs.resolve()):
        yield from _closing(_start(spec, connection.mode, connection.reason))


def _closing(tracker: Tracker) -> Iterator[Tracker]:
    try:
        yield tracker
    except BaseException as error:
        tracker.close(1, error)
        raise
    tracker.close(0)


def _start(spec: RunSpec, mode: str, reason: str | None) -> Tracker:
    """Open the run, online if `mode` says so and the server takes it, else offline, else not at all."""
    config = _with_names(flatten(spec.config))
    try:
        agent = agent_run()
        # The sweep's own values are not replaced: its run is found by them.
        config |= agent.values if agent else {}
        if mode == "online":
            run_id = agent.run_id if agent else secrets.token_hex(4)
            try:
                return Tracker(_open(spec, "online", run_id, config, agent), "online", config)
            except Exception as error:  # key refused, server unwell, time is up: keep the run on disk instead
                reason = brief(error)
                _discard(spec.outputs, run_id)
        if mode == "online" or (spec.mode == "online" and reason):
            log.warning("W&B: no online run (%s); the run is stored on disk", reason)
        run_id = agent.run_id if agent else secrets.token_hex(4)
        return Tracker(_open(spec, "offline", run_id, config, agent), "offline", config, reason)
    except Exception as error:  # no disk space, no permission, a broken installation: the job is worth more
        problem = f"cannot start a run ({brief(error)})"
        log.warning("W&B: %s; the job continues without one", problem)
        return Tracker(None, "offline", config, problem=problem)


def _with_names(config: dict[str, Any]) -> dict[str, Any]:
    """Return the flat config with the name of each component under its group alone, too: `pruner` for `pruner.name`."""
    names = {key.removesuffix(".name"): value for key, value in config.items() if key.endswith(".name")}
    return {key: value for key, value in names.items() if "." not in key} | config


def _open(
    spec: RunSpec, mode: Literal["online", "offline"], run_id: str, config: dict[str, Any], agent: AgentRun | None
) -> Run:
    """Open a run. A writing process that died after an earlier run of this process is replaced."""
    try:
        return _init(spec, mode, run_id, config, agent)
    except Exception as error:
        if not service.is_gone(error):
            raise
        service.let_go()
        return _init(spec, mode, run_id, config, agent)


def _init(
    spec: RunSpec, mode: Literal["online", "offline"], run_id: str, config: dict[str, Any], agent: AgentRun | None
) -> Run:
    prepare_import()
    import wandb

    outputs = spec.outputs.resolve()
    outputs.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        base_url=base_url(),
        console="off",
        disable_code=True,
        disable_git=True,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        init_timeout=INIT_SECONDS,
        save_code=False,
        silent=True,
        symlink=False,  # jobs that run side by side would fight over wandb/latest-run
        use_dot_wandb=False,
        x_disable_machine_info=True,
        x_disable_meta=True,  # it holds the command line, which may hold a key
        x_disable_stats=True,
        x_save_requirements=False,
    )
    # An agent has put its run, project and entity into the environment, where wandb finds them.
    return wandb.init(
        dir=str(outputs),
        mode=mode,
        id=None if agent else run_id,
        project=None if agent else spec.project,
        entity=None if agent else spec.entity,
        name=spec.name[:NAME_LENGTH],
        group=(agent.sweep if agent else spec.group)[:NAME_LENGTH],
        job_type=spec.job_type[:TAG_LENGTH],
        tags=tuple(dict.fromkeys(tag[:TAG_LENGTH] for tag in spec.tags if tag)),
        config=config,
        reinit="finish_previous",  # otherwise a run left open would be returned again
        settings=settings,
    )


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


def _discard(outputs: Path, run_id: str) -> None:
    """Remove the files that a refused online run left behind."""
    for folder in (outputs / "wandb").glob(f"run-*-{run_id}"):
        shutil.rmtree(folder, ignore_errors=True)
