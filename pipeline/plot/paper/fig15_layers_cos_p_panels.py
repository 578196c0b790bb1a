"""Supplement of fig15: its curves over steps, a small panel per layer."""

from __future__ import annotations

from pipeline.plot import layer_panels
from pipeline.plot.paper.fig15_layers_cos_p import CURVES

FIGURE = layer_panels.figure(CURVES)
