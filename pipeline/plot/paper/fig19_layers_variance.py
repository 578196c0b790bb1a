"""Layer protocol: uniform and r-weighted variance of the logit change in every layer, as a map of layer and step."""

from __future__ import annotations

from pipeline.plot import layer_map, style
from pipeline.plot.layer_curves import Curve, LayerCurves

UNIFORM = Curve(
    "var_uniform", "uniform", style.SPACE_COLOURS["z"], lambda rows: rows["var_uniform"].astype(float).clip(lower=0.0)
)
WEIGHTED = Curve(
    "var_r", "r-weighted", style.SPACE_COLOURS["p"], lambda rows: rows["var_r"].astype(float).clip(lower=0.0)
)

CURVES = LayerCurves(
    title="Variance of the logit change in every layer",
    label=r"variance of $\Delta z$ (squared logits)",
    columns=("var_uniform", "var_r"),
    curves=(UNIFORM, WEIGHTED),
    note="Variance over the vocabulary, with uniform weights or weights r = p^2 / |p|^2.",
)
FIGURE = layer_map.figure(CURVES)
