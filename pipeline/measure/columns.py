"""Columns of the table of measures: where a measure was taken, and the built-in measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.store.table_columns import HOW, IDS, WHO, WORDS

if TYPE_CHECKING:
    # Read by the check of a command line, which loads no such library.
    import pandas as pd

INDEX = ("protocol", "prompt", "step", "layer", "sublayer", "temperature")
COLUMNS = [
    "cos_h",
    "cos_z",
    "cos_p",
    "kl",
    "tv",
    "kl_reverse",
    "orth_h",
    "orth_z",
    "par_h",
    "par_z",
    "var_p",
    "var_r",
    "var_uniform",
    "rms_dz",
    "est_cos_h",
    "est_cos_z",
    "est_cos_p",
    "est_kl",
    "top1",
    "entropy",
    "margin",
    "flip",
]
# Columns of the table of measures of sets, which has a row for each measure of a set of n states.
SET_COLUMNS = ("protocol", "layer", "sublayer", "n", "measure", "value")
# Names that no further measure may have: columns of the tables, and those that readers of the tables add.
TAKEN = {*COLUMNS, *INDEX, *SET_COLUMNS, *WHO, *HOW, *IDS, *WORDS, "position", "probe", "options", "replicate"}


def further_columns(measures: pd.DataFrame) -> list[str]:
    """Return the columns of a table of measures that come from ``measure.extra`` and hold numbers in it."""
    return [str(name) for name in measures if name not in TAKEN and measures[name].notna().any()]
