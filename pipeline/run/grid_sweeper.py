"""Sweeper that runs every combination of the listed values: Hydra's own, with sparsities and options by pruner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf

from pipeline.config.experiment import GRIDS, each_job
from pipeline.run.launchers.base import SweepLauncher


class GridSweeper(BasicSweeper):
    """Runs every combination; a pruner with sparsities or options of its own in the experiment with those."""

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """Return the overrides of the next jobs, one sequence a job."""
        assert self.config is not None
        experiment: Any = OmegaConf.to_container(OmegaConf.masked_copy(self.config, [*GRIDS]))
        pruner = str(self.config.pruner.name)
        return [own for job in super().get_job_batch() for own in each_job(job, experiment, pruner)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose all jobs, before any begins. A launcher of the pipeline keeps what it composes for its jobs."""
        if isinstance(self.launcher, SweepLauncher):
            self.launcher.compose_all(batch)
        else:
            super().validate_batch_is_legal(batch)
