"""Supplement of fig16: its curves over steps, a small panel per layer."""

from __future__ import annotations

from pipeline.plot import layer_panels
from pipeline.plot.paper.fig16_layers_cos_h import CURVES

FIGURE = layer_panels.figure(CURVES)
