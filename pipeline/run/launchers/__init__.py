"""Launchers, which run the jobs of a sweep: the choices of ``conf/hydra/launcher``."""

from __future__ import annotations

from hydra.core.plugins import Plugins

# Hydra takes launchers from this namespace only; the classes themselves are here.
NAMESPACE = "hydra_plugins.pipeline"


def register() -> None:
    """Make the launchers known to Hydra under the names that their YAML files give as ``_target_``."""
    from pipeline.run.launchers.local import LocalLauncher
    from pipeline.run.launchers.slurm import SlurmLauncher

    for launcher in (LocalLauncher, SlurmLauncher):
        Plugins.instance().class_name_to_class[f"{NAMESPACE}.{launcher.__name__}"] = launcher
