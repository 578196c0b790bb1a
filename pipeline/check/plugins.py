"""Check of launchers and sweepers of Hydra plugins, such as joblib and Optuna, by the types that they give Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.choices import choices_of
from pipeline.config.search_path import CONF, searched

LAUNCHER, SWEEPER, SAMPLER = "hydra/launcher", "hydra/sweeper", "hydra/sweeper/sampler"
# Keys that name code to call. What is called comes from installed plugins and from files that the user names.
_CODE = ("_target_", "_partial_", "custom_search_space")
# Sweepers that run every combination; any other chooses trials by their results.
GRIDS = ("grid", "basic")


def plugin_choices(group: str) -> list[str]:
    """Return the options that installed Hydra plugins, and Hydra itself, give to a group."""
    # Importing the plugins registers their options.
    Plugins.instance()
    store = ConfigStore.instance()
    try:
        return sorted(name.removesuffix(".yaml") for name in store.list(group) if name.endswith(".yaml"))
    except OSError:
        return []


def uses_plugin(overrides: Sequence[str]) -> bool:
    """Return whether a command line chooses a launcher or sweeper that is not the project's own."""
    pairs = [override.lstrip("+").partition("=") for override in overrides]
    return any(key in (LAUNCHER, SWEEPER) and value not in choices_of(key) for key, _, value in pairs)


def plugin_problems(group: str, option: str, settings: Mapping[str, str]) -> list[str]:
    """Return a sentence for each problem of an option of ``group`` and of its keys, by Hydra's own types.

    ``settings`` are the overrides below the group, as text by key.
    """
    found = [f"{key}: code to call cannot be set here" for key in settings if key.rpartition(".")[2] in _CODE]
    words = [f"{group}={option}", *(f"{key}={value}" for key, value in settings.items())]
    if found or (problem := _composition(words)) is None:
        return found
    return [f"{' '.join(words)}: {problem}"]


def _composition(words: Sequence[str]) -> str | None:
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            compose("config", overrides=[*words, *searched()], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    finally:
        GlobalHydra.instance().clear()
    return None
