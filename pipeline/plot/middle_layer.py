"""Curves over generation steps at one middle layer of the layer protocol, which several figures share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from pipeline.analysis import series
from pipeline.plot.equal_curves import draw_once
from pipeline.plot.variant_notes import left_out_note, listed
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import VARIANT, rows_of, spread, variants_of


def middle_steps(
    rows: pd.DataFrame, values: Callable[[pd.DataFrame], Mapping[str, pd.Series]], limit: int
) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    """Compute median and quartiles over prompts at each step of the middle layer, for at most `limit` variants.

    Args:
        rows: measures of the layer protocol at one temperature.
        values: computes the quantities to follow from the rows of the middle layer.
        limit: how many variants the figure has room for.

    Returns:
        Columns pruner, sparsity, sublayer, layer, quantity, step, median, low, high, n; the place in words
        ("layer 15, attention"); and the notes for the caption.
    """
    everyone = variants_of(rows)
    rows, sublayer, layer = middle_layer(rows)
    name = series.SUBLAYER_NAMES[sublayer]
    absent = listed(variant for variant in everyone if variant not in variants_of(rows))
    steps = series.profile(rows, [*VARIANT, "step"], values(rows))
    steps = series.well_covered(steps)
    steps, identical_note = series.drop_identical(steps, dict.fromkeys(steps["quantity"], 0.0))
    steps = series.merge_equal(steps).assign(sublayer=sublayer, layer=layer)
    steps, equal_note = draw_once(steps, ["quantity", "step"], series.STATISTICS)
    shown, left_out = spread(variants_of(steps), limit)
    steps = rows_of(steps, shown)
    steps = steps.sort_values([*VARIANT, "quantity", "step"], kind="stable")
    notes = (
        f"Only the {name} of layer {layer} is pruned, on dense inputs.",
        series.step_note(rows),
        *((f"No {name} measures there: {absent}.",) if absent else ()),
        *identical_note,
        *equal_note,
        *left_out_note(left_out),
    )
    columns = [*VARIANT, "sublayer", "layer", "quantity", "step", *series.STATISTICS, "n"]
    return steps[columns], f"layer {layer}, {name}", notes


def middle_layer(rows: pd.DataFrame) -> tuple[pd.DataFrame, str, int]:
    """Return the rows of one middle layer, its sublayer and its index, for figures that show one layer over steps.

    The sublayer is attention if it was measured, else MLP. The layer is at place `count // 2` (15 of 0..29) among those
    measured for every variant (for any, if none was for all), in ascending order.

    Raises:
        MissingData: if no layer was measured.
    """
    for sublayer in ("attention", "mlp"):
        part = rows[rows["sublayer"] == sublayer]
        if part.empty:
            continue
        sets = [set(group["layer"]) for _, group in part.groupby(VARIANT)]
        layers = sorted(set.intersection(*sets) or set.union(*sets))
        layer = int(layers[len(layers) // 2])
        return part[part["layer"] == layer], sublayer, layer
    raise MissingData("the layer protocol has no attention or MLP rows for these settings")
