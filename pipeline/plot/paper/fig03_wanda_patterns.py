"""Scores of the dense model and under three patterns of Wanda, by generation and by multiple choice (figure 3).

Without Wanda, of the dense model and of those that were run.
"""

from __future__ import annotations

from pipeline.plot.score_bars import bars_of

FIGURE = bars_of("wanda", else_any=True)
