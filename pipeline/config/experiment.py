"""Experiments: choices of ``conf/experiment``, each with the sweep that one figure of the paper needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.config.choices import choices_of, read_choice
from pipeline.config.schema import EXPERIMENT

# Keys that define the sweep of an experiment, read here and while the configuration is composed.
GRIDS = ("sweep", "sparsity_of", "options_of")


def expand(arguments: Sequence[str]) -> list[str]:
    """Return the command line with the sweep of its experiment written out, except for keys that it sets itself.

    An experiment that is unknown or cannot be read adds nothing: it is refused with all other problems.
    """
    pairs = [argument.lstrip("+").partition("=") for argument in arguments]
    keys = {key for key, _, _ in pairs}
    chosen = [value for key, _, value in pairs if key == EXPERIMENT]
    added: dict[str, str] = {}
    for name in chosen:
        if name not in choices_of(EXPERIMENT):
            continue
        try:
            grid = read_choice(EXPERIMENT, name).get("sweep")
        except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(grid, Mapping):
            added |= {str(key): _joined(values) for key, values in grid.items() if key not in keys}
    return [*arguments, *(f"{key}={values}" for key, values in added.items())]


def _joined(values: Any) -> str:
    return ",".join(map(str, values if isinstance(values, list) else [values]))


def each_job(job: Sequence[str], experiment: Mapping[str, Any], pruner: str) -> list[list[str]]:
    """Return the overrides of a job with what its experiment says about its pruner, once for each listed sparsity.

    ``experiment`` has its ``sparsity_of`` and ``options_of``; ``pruner`` names the pruner of a job that does not choose
    one. A job keeps the sparsity and the options that it sets itself.
    """
    given = dict(word.lstrip("+").partition("=")[::2] for word in job)
    name = given.get("pruner.name", given.get("pruner", pruner))
    options = {f"pruner.{key}": value for key, value in (experiment["options_of"].get(name) or {}).items()}
    own = [f"{key}={value}" for key, value in options.items() if key not in given]
    sparsities = experiment["sparsity_of"].get(name)
    if "sparsity" in given or not isinstance(sparsities, list):
        return [[*job, *own]]
    return [[*job, *own, f"sparsity={value}"] for value in sparsities]
