"""Launchers, which run the jobs of a sweep, and the sweeper, which lists them: see ``conf/hydra``."""

from __future__ import annotations

from hydra.core.plugins import Plugins

# Hydra takes plugins from this namespace only; the classes themselves are here.
NAMESPACE = "hydra_plugins.pipeline"


def register() -> None:
    """Make launchers and sweeper known to Hydra under the names that their YAML files give as ``_target_``."""
    from pipeline.run.grid_sweeper import GridSweeper
    from pipeline.run.launchers.local import LocalLauncher
    from pipeline.run.launchers.slurm import SlurmLauncher

    for plugin in (LocalLauncher, SlurmLauncher, GridSweeper):
        Plugins.instance().class_name_to_class[f"{NAMESPACE}.{plugin.__name__}"] = plugin
