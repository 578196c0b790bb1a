"""The report, one page with all results of a run: `python -m pipeline.report`. Reads tables and figures, no torch."""

from __future__ import annotations

from pipeline.report.page import write

__all__ = ["write"]
