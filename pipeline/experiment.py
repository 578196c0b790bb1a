"""Experiments: what one figure of the paper needs, as a choice of ``conf/experiment`` with a sweep of its own."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import OmegaConf

from pipeline.choices import CONF

# The keys that make a sweep of an experiment; they are read here and while the configuration is composed.
GRIDS = ("sweep", "sparsity_of")


def expand(arguments: Sequence[str]) -> list[str]:
    """The command line with the sweep of its experiment written out, except for what it sets itself.

    A name that is no experiment adds nothing: it is refused with all other problems.
    """
    keys = {argument.partition("=")[0] for argument in arguments}
    chosen = [argument.partition("=")[2] for argument in arguments if argument.startswith("experiment=")]
    added: dict[str, str] = {}
    for name in chosen:
        path = CONF / "experiment" / f"{name}.yaml"
        grid = OmegaConf.load(path).get("sweep", {}) if path.is_file() else {}
        added |= {str(key): ",".join(map(str, values)) for key, values in grid.items() if key not in keys}
    return [*arguments, *(f"{key}={values}" for key, values in added.items())]
