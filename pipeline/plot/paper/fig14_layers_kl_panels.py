"""Supplement of fig14: its curves over steps, a small panel per layer."""

from __future__ import annotations

from pipeline.plot import layer_panels
from pipeline.plot.paper.fig14_layers_kl import CURVES

FIGURE = layer_panels.figure(CURVES)
