"""Scores of the dense model and under three patterns of Wanda, by generation and by multiple choice (figure 3)."""

from __future__ import annotations

from pipeline.figures.score_bars import bars_of

FIGURE = bars_of("wanda")
