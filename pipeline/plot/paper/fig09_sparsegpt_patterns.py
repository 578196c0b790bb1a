"""Scores of the dense model and of SparseGPT in three patterns, by generation and by multiple choice (figure 9)."""

from __future__ import annotations

from pipeline.plot.score_bars import bars_of

FIGURE = bars_of("sparsegpt")
