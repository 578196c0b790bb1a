"""Scores of the dense model and of Wanda in three patterns, by generation and by multiple choice (figure 3).

If Wanda was not run, the scores of the dense model and of the variants that were.
"""

from __future__ import annotations

from pipeline.plot.score_bars import bars_of

FIGURE = bars_of("wanda", else_any=True)
