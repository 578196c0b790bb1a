"""Layer protocol: cosine similarity of h, z and p after dropping each sublayer alone, over depth."""

from __future__ import annotations

from functools import partial

from pipeline.plot import layer_profile
from pipeline.plot.base import Figure

select = partial(
    layer_profile.select,
    weights=False,
    title="Similarity to the dense model after dropping a single sublayer",
    notes=("One sublayer dropped at a time, on dense inputs, regardless of which ones the pruner would choose.",),
)
FIGURE = Figure(select, layer_profile.draw, version=4, span=layer_profile.span)
