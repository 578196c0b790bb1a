"""Turns a composed configuration into a job. Like ``pipeline.config.by_name``, it sees OmegaConf."""

from __future__ import annotations

import logging
import random
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.common.errors import plain
from pipeline.common.garbage import importing
from pipeline.common.quiet import quiet_libraries
from pipeline.common.secrets import redact, redacted
from pipeline.config.experiment import GRIDS
from pipeline.config.objective import objectives
from pipeline.config.probes import read_probes
from pipeline.config.schema import GROUPS, NODES, PLOT, flatten, typed
from pipeline.config.search_path import CONF, search_also
from pipeline.config.signature import component_problems
from pipeline.config.sparsity import parse, rounded
from pipeline.measure.extras import extra_problems
from pipeline.prune.settings import Settings
from pipeline.run.drawing_process import begin
from pipeline.run.expected import finished_before
from pipeline.store.records import FAILED, OUTCOME, TRACEBACK, JobRecord, now

if TYPE_CHECKING:
    from pipeline.measure.base import FurtherMeasure

log = logging.getLogger(__name__)


def task(cfg: DictConfig) -> JobRecord | float | list[float | None] | None:
    """Run one job and return its record, or in a sweep with an ``objective`` that number of it. Hydra's task function.

    Never raises for a failing job. An interruption passes.
    """
    record, names = job(cfg), objectives(cfg.objective)
    if not names or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return record
    from pipeline.run.objective import objective_of

    return objective_of(record, Path(str(cfg.outputs)), names)


def job(cfg: DictConfig) -> JobRecord:
    """Run one job in its own tracked run; leave its outcome in its folder, and return it.

    Never raises for a failing job. An interruption passes.
    """
    # A job may run in a process that has seen no command line.
    search_also(_own_folders())
    folder = Path(HydraConfig.get().runtime.output_dir)
    multirun = HydraConfig.get().mode is RunMode.MULTIRUN
    started = now()
    if not multirun and PLOT in cfg.stages and not finished_before(folder, [HydraConfig.get().overrides.task]):
        begin()
    try:
        # Deferred: help, checks and mistakes should be answered at once.
        with importing():
            from pipeline.run.job import run_job

        return run_job(_prepared(cfg, multirun), folder.parent.name if multirun else folder.name, folder)
    except (Exception, SystemExit) as error:
        record = replace(unstarted(cfg), started=started, finished=now(), status=FAILED, error=plain(error))
        log.error("failed: %s", record.error)
        with suppress(OSError):
            (folder / TRACEBACK).write_text(redact(traceback.format_exc()), encoding="utf-8")
            record.write(folder / OUTCOME)
        return record


def _prepared(cfg: DictConfig, multirun: bool) -> Settings:
    """Return the settings of a job that begins now, and seed the random numbers of this process."""
    import numpy as np
    import torch

    from pipeline.export.hf import export_folder
    from pipeline.run.job_record import describe

    quiet_libraries()
    settings = resolve(cfg)
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    if multirun:
        # Figures show all jobs of a sweep: they are drawn once, at its end.
        settings = replace(settings, stages=tuple(stage for stage in settings.stages if stage != PLOT))
    if settings.export.path is not None and multirun:
        own = Path(settings.export.path) / export_folder(settings, describe(settings).job)
        settings = replace(settings, export=replace(settings.export, path=str(own)))
    return settings


def resolve(cfg: DictConfig) -> Settings:
    """Return the composed configuration as plain objects. Raises ValueError with a sentence for each wrong value."""
    values, found = typed(_plain(cfg))
    found += [problem for group in GROUPS for problem in component_problems(group, values[group])]
    found = found or extra_problems(values["measure"]["extra"])
    if found:
        raise ValueError("; ".join(found))
    parts = {group: hydra.utils.instantiate(values[group], _convert_="all") for group in GROUPS}
    nodes: dict[str, Any] = {key: kind(**values[key]) for key, kind in NODES.items()}
    return Settings(
        **parts,
        **nodes,
        # Dense has no sparsity, whatever the rest of the sweep has.
        sparsity=parse(values["sparsity"] if parts["pruner"].accepts else 0),
        stages=tuple(values["stages"]),
        seed=values["seed"],
        dtype=values["dtype"],
        outputs=Path(values["outputs"]),
        probes=read_probes(values["probes"]),
        extra=tuple(_measure(name) for name in sorted(values["measure"]["extra"])),
        flat=_flat(cfg),
    )


def _measure(name: str) -> FurtherMeasure:
    # Deferred: help, checks and mistakes should be answered at once.
    from pipeline.measure.further import further_measure

    return further_measure(name)


def unstarted(cfg: DictConfig) -> JobRecord:
    """Return the record of a job whose components could not be made or were never asked for: only its names are known.

    Without an id, such a record is an outcome of its command only.
    """
    flat = _flat(cfg)
    model, pruner, sparsity = (str(flat.get(key, "?")) for key in ("model.name", "pruner.name", "sparsity"))
    return JobRecord("", "", model, pruner, sparsity, config=redacted(flat))


def _own_folders() -> list[Path]:
    """Return the folders with configuration of the user's own, in which Hydra has composed this job."""
    sources = HydraConfig.get().runtime.config_sources
    paths = [Path(source.path) for source in sources if source.schema == "file"]
    return [path for path in paths if path.resolve() != CONF.resolve()]


def _plain(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """Return the configuration as plain values, without Hydra's own."""
    values: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]), resolve=resolve
    )
    return values


def _flat(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration as flat values with dotted keys, without the grids of experiments."""
    try:
        values = _plain(cfg)
    except OmegaConfBaseException:  # a reference to a key that not every job of the sweep has
        values = _plain(cfg, resolve=False)
    flat = {key: value for key, value in flatten(typed(values)[0]).items() if key.partition(".")[0] not in GRIDS}
    if isinstance(sparsity := flat.get("sparsity"), float):
        flat["sparsity"] = rounded(sparsity)
    return flat
