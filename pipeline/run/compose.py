"""From a composed configuration to a job: the only file below the entry point that sees OmegaConf."""

from __future__ import annotations

import logging
import random
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.common.errors import plain
from pipeline.common.quiet import quiet_libraries
from pipeline.common.secrets import redact, redacted
from pipeline.config.experiment import GRIDS
from pipeline.config.probes import read_probes
from pipeline.config.schema import PLOT, Config, Export, ExportConfig, Settings, flatten
from pipeline.config.sparsity import parse, rounded
from pipeline.store.records import FAILED, OUTCOME, TRACEBACK, JobRecord, now

ConfigStore.instance().store(name="schema", node=Config)

log = logging.getLogger(__name__)
# Of Hydra's behaviour.
VERSION_BASE = "1.3"


def job(cfg: DictConfig) -> JobRecord:
    """One job, in its own tracked run; its outcome is left in its folder and returned. Hydra's task function.

    Never raises for a failing job. An interruption passes.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    multirun = HydraConfig.get().mode is RunMode.MULTIRUN
    started = now()
    try:
        # Deferred so that help, checks and mistakes answer at once.
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
    """Settings of a job that begins now, in a process with seeded random numbers."""
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
    if settings.export is not None and multirun:
        own = settings.export.path / export_folder(settings, describe(settings).job)
        settings = replace(settings, export=replace(settings.export, path=own))
    return settings


def resolve(cfg: DictConfig) -> Settings:
    """The composed configuration as plain objects."""
    parts = {group: hydra.utils.instantiate(cfg[group], _convert_="all") for group in ("model", "pruner", "task")}
    typed: Any = OmegaConf.to_object(cfg)
    return Settings(
        **parts,
        calibration=hydra.utils.instantiate(cfg.calibration, _convert_="all"),
        # Dense has no sparsity, whatever the rest of the sweep has.
        sparsity=parse(cfg.sparsity if parts["pruner"].accepts else 0),
        stages=tuple(cfg.stages),
        seed=cfg.seed,
        dtype=cfg.dtype,
        outputs=Path(cfg.outputs),
        export=_export(typed.export),
        probes=read_probes(cfg.probes),
        figures=None if cfg.figures is None else tuple(cfg.figures),
        capture=typed.capture,
        measure=typed.measure,
        perplexity=typed.perplexity,
        wandb=typed.wandb,
        flat=_flat(cfg),
    )


def _export(chosen: ExportConfig) -> Export | None:
    return Export(Path(chosen.path).expanduser().absolute(), chosen.format) if chosen.path else None


def unstarted(cfg: DictConfig) -> JobRecord:
    """The record of a job whose components could not be made or were never asked for: its names are all that is known.

    Without an id, such a record is an outcome of its command only.
    """
    flat = _flat(cfg)
    model, pruner, sparsity = (str(flat.get(key, "?")) for key in ("model.name", "pruner.name", "sparsity"))
    return JobRecord("", "", model, pruner, sparsity, config=redacted(flat))


def _flat(cfg: DictConfig) -> dict[str, Any]:
    """Plain values with dotted keys, without Hydra's own."""
    mine = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    try:
        values: Any = OmegaConf.to_container(mine, resolve=True)
    except OmegaConfBaseException:  # one that refers to what another job of the sweep does not have
        values = OmegaConf.to_container(mine, resolve=False)
    flat = {key: value for key, value in flatten(values).items() if key.partition(".")[0] not in GRIDS}
    if isinstance(sparsity := flat.get("sparsity"), float):
        flat["sparsity"] = rounded(sparsity)
    return flat
