"""Supplement of fig21: its curves over steps, a small panel per layer."""

from __future__ import annotations

from pipeline.plot import layer_panels
from pipeline.plot.paper.fig21_layers_weighted_ratio import CURVES

FIGURE = layer_panels.figure(CURVES)
