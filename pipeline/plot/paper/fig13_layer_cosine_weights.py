"""Layer protocol: fig04 for pruners that change weights; figure 13 of the paper shows Wanda."""

from __future__ import annotations

from functools import partial

from pipeline.plot import layer_profile
from pipeline.plot.base import Figure

select = partial(
    layer_profile.select,
    weights=True,
    title="Similarity to the dense model after changing the weights of a single sublayer",
    notes=(
        "The weights of one sublayer changed at a time, on dense inputs; each method at its lowest nonzero sparsity, "
        "if any.",
    ),
)
FIGURE = Figure(select, layer_profile.draw, version=3, span=layer_profile.span)
