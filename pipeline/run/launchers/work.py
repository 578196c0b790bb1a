"""Job of a sweep in the process that a launcher has started for it, on any machine."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from hydra import version
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from pipeline.common.errors import plain
from pipeline.common.stopping import stoppable
from pipeline.config.by_name import VERSION_BASE
from pipeline.run.compose import unstarted
from pipeline.store.artifacts import Store
from pipeline.store.records import FAILED, INTERRUPTED, OUTCOME, JobRecord, load_records, now

log = logging.getLogger(__name__)


def carry_out(config: DictConfig, context: HydraContext, task: TaskFunction) -> JobRecord:
    """Run a job of a sweep in this process, with its log and its folder. Its record says how it ended; never raises.

    ``config`` comes from `SweepLauncher.compose`. A signal to stop makes the job "interrupted", after an orderly end.
    """
    version.setbase(VERSION_BASE)
    setup_globals()
    started = now()
    try:
        with stoppable():
            done = run_job(
                hydra_context=context,
                task_function=task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            record: JobRecord = done.return_value
            return record
    except KeyboardInterrupt as stop:
        status, cause = INTERRUPTED, str(stop) or "stopped by SIGINT"
    except BaseException as error:
        status, cause = FAILED, plain(error)
    return without_a_word(config, status, cause, started)


def without_a_word(config: DictConfig, status: str, cause: str, started: str, seconds: float = 0.0) -> JobRecord:
    """Return and store the record of a job that ended without giving one: the one on disk, with status and cause."""
    folder = Path(config.hydra.sweep.dir) / str(config.hydra.job.num)
    record = next(iter(load_records(folder, OUTCOME)), None)
    if record is None:
        record = replace(unstarted(config), started=started)
    elif record.status != INTERRUPTED:
        # The job had come to an end; only its process did not exit as it should.
        return record
    record = replace(record, status=status, error=cause, finished=now())
    record.seconds = record.seconds or round(seconds, 2)
    try:
        record.write(folder / OUTCOME)
        if record.job:
            store = Store(Path(config.outputs))
            with store.alone("records"):
                record.save(store)
    except OSError as error:
        log.warning("the record of job %s cannot be written: %s", config.hydra.job.num, plain(error))
    return record
