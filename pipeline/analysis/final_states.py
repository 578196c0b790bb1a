"""Final states on the dense model's own trajectory, for the figures that pool its positions."""

from __future__ import annotations

import pandas as pd

from pipeline.analysis import series
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, Variant, magnitude, ordered, rows_of, variants_of


def on_dense_trajectory(tables: Tables) -> tuple[pd.DataFrame, str, str]:
    """Return the teacher-forced measures, or those of the layer protocol at the last layer if there are none.

    Returns:
        The rows at one temperature, their protocol, and the caption sentence that says what was compared.

    Raises:
        MissingData: if neither protocol was measured.
    """
    try:
        rows, temperature = series.at_temperature(tables.protocol("teacher_forced"))
    except MissingData:
        rows, temperature = series.at_temperature(tables.protocol("layer"))
        last = int(rows["layer"].max())
        said = f"Layer protocol, pruning only a sublayer of the last layer ({last}) on dense inputs"
        return rows[rows["layer"] == last], "layer", f"{said}; temperature {temperature:g}."
    said = "Teacher-forced, the whole pruned model on the dense model's own tokens; final states"
    return rows, "teacher_forced", f"{said}; temperature {temperature:g}."


def leave_out_unchanged(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Remove variants of sparsity 0 whose KL is zero everywhere, unless that leaves none; return rows and a note."""
    worst = rows["kl"].abs().groupby([rows[name] for name in VARIANT]).max()
    same = ordered(Variant(*key) for key, kl in worst.items() if magnitude(key[1]) == 0 and kl < series.ROUNDING)
    kept = [variant for variant in variants_of(rows) if variant not in same]
    if not same or not kept:
        return rows, ()
    names = ", ".join(variant.label for variant in same)
    return rows_of(rows, kept), (f"Not shown, identical to the dense model at every position: {names}.",)
