"""The command line: compose, check, run each job, close the sweep. The only file that sees OmegaConf and argv."""

from __future__ import annotations

import logging
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pipeline.check import problems
from pipeline.choices import CONF
from pipeline.config import Config, Settings, flatten
from pipeline.experiment import GRIDS, expand
from pipeline.probes import read_probes
from pipeline.quiet import quiet_libraries
from pipeline.sparsity import parse
from pipeline.sweep import PLOT, SweepSummary, close

ConfigStore.instance().store(name="schema", node=Config)
_MULTIRUN = ("-m", "--multirun")
# These only print; hydra handles them before any job.
_INFORMATION = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(cfg: DictConfig) -> str:
    """One job, in its own tracked run; its outcome is on disk and its status is returned."""
    # Deferred so that help, checks and mistakes answer at once.
    import numpy as np
    import torch

    from pipeline.export import export_folder
    from pipeline.job import describe, run_job

    quiet_libraries()
    settings = resolve(cfg)
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    folder = Path(HydraConfig.get().runtime.output_dir)
    multirun = HydraConfig.get().mode is RunMode.MULTIRUN
    if multirun:
        # Figures show all jobs of a sweep: they are drawn once, at its end.
        settings = replace(settings, stages=tuple(stage for stage in settings.stages if stage != PLOT))
    if settings.export is not None and multirun:
        settings = replace(settings, export=settings.export / export_folder(settings, describe(settings).job))
    return run_job(settings, folder.parent.name if multirun else folder.name, folder).status


def resolve(cfg: DictConfig) -> Settings:
    """The composed configuration as plain objects."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
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
        export=Path(cfg.export).expanduser().absolute() if cfg.export else None,
        probes=read_probes(cfg.probes),
        figures=None if cfg.figures is None else tuple(cfg.figures),
        capture=typed.capture,
        measure=typed.measure,
        perplexity=typed.perplexity,
        wandb=typed.wandb,
        flat={key: value for key, value in flatten(plain).items() if key.partition(".")[0] not in GRIDS},
    )


def main() -> int:
    """Entry point. Exit status 2 for a bad command line, 1 if a job failed, else 0."""
    arguments = expand(sys.argv[1:])
    quiet_libraries()
    if not any(argument.split("=")[0] in _INFORMATION for argument in arguments):
        overrides = [argument for argument in arguments if not argument.startswith("-")]
        multirun = any(argument in _MULTIRUN for argument in arguments)
        if found := problems(overrides, multirun):
            print(f"{len(found)} problem{'s' * (len(found) > 1)} in the configuration:", file=sys.stderr)
            print("\n".join(f"  - {problem}" for problem in found), file=sys.stderr)
            return 2
    # The argument parser takes overrides as one block: a flag between them would be an error.
    sys.argv[1:] = sorted(arguments, key=lambda argument: argument not in _MULTIRUN)
    try:
        _job()
    except KeyboardInterrupt:
        print("interrupted: finished stages are kept; the same command goes on from there", file=sys.stderr)
        return 130
    if SweepSummary.folder is None:
        return 0
    from pipeline.store import Store

    return close(SweepSummary.folder, Store(SweepSummary.outputs))


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(main())
