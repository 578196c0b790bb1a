"""Figures drawn from `outputs/tables` alone: no model, no accelerator, no torch."""

from __future__ import annotations

from pipeline.figures.drawing import FigureResult, draw

__all__ = ["FigureResult", "draw"]
