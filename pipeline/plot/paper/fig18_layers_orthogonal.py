"""Layer protocol: relative orthogonal magnitude of the change of h and z in every layer, as a map of layer and step."""

from __future__ import annotations

from pipeline.plot import layer_map, style
from pipeline.plot.layer_curves import Curve, LayerCurves

CURVES = LayerCurves(
    title="Orthogonal part of the change in every layer",
    label=r"$\|\Delta x_\perp\|^2 \,/\, \|x\|^2$",
    columns=("orth_h", "orth_z"),
    curves=(
        Curve("h", style.SPACE_NAMES["h"], style.SPACE_COLOURS["h"], lambda rows: rows["orth_h"].clip(lower=0.0)),
        Curve("z", style.SPACE_NAMES["z"], style.SPACE_COLOURS["z"], lambda rows: rows["orth_z"].clip(lower=0.0)),
    ),
    note="Squared relative magnitude of the component orthogonal to the dense state.",
)
FIGURE = layer_map.figure(CURVES)
