"""Supplement of fig20: its curves over steps, a small panel per layer."""

from __future__ import annotations

from pipeline.plot import layer_panels
from pipeline.plot.paper.fig20_layers_uniform_ratio import CURVES

FIGURE = layer_panels.figure(CURVES)
