"""Supplement of fig18: its curves over steps, a small panel per layer."""

from __future__ import annotations

from pipeline.plot import layer_panels
from pipeline.plot.paper.fig18_layers_orthogonal import CURVES

FIGURE = layer_panels.figure(CURVES)
