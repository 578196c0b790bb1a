"""Supplement of fig17: its curves over steps, a small panel per layer."""

from __future__ import annotations

from pipeline.plot import layer_panels
from pipeline.plot.paper.fig17_layers_cos_z import CURVES

FIGURE = layer_panels.figure(CURVES)
