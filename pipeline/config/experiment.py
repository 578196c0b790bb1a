"""Experiments: what one figure of the paper needs, as a choice of ``conf/experiment`` with a sweep of its own."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config.choices import choices_of, read_choice
from pipeline.config.schema import EXPERIMENT

# The keys that make a sweep of an experiment; they are read here and while the configuration is composed.
GRIDS = ("sweep", "sparsity_of")


def expand(arguments: Sequence[str]) -> list[str]:
    """The command line with the sweep of its experiment written out, except for what it sets itself.

    A name that is not an experiment adds nothing: it is refused with all other problems.
    """
    pairs = [argument.lstrip("+").partition("=") for argument in arguments]
    keys = {key for key, _, _ in pairs}
    chosen = [value for key, _, value in pairs if key == EXPERIMENT]
    added: dict[str, str] = {}
    for name in chosen:
        if name not in choices_of(EXPERIMENT):
            continue
        grid = read_choice(EXPERIMENT, name).get("sweep", {})
        added |= {str(key): ",".join(map(str, values)) for key, values in grid.items() if key not in keys}
    return [*arguments, *(f"{key}={values}" for key, values in added.items())]
