"""Supplement of fig19: its curves over steps, a small panel per layer."""

from __future__ import annotations

from pipeline.plot import layer_panels
from pipeline.plot.paper.fig19_layers_variance import CURVES

FIGURE = layer_panels.figure(CURVES)
