"""The interface for Python and notebooks: ``from pipeline.api import prune, measure, evaluate, compare, load, export``.

The functions are those that the command line's stages are made of. They need no configuration, no outputs folder and no
tracking, and leave models, random numbers and logging as they were. ``docs/python.md`` shows them at work.
"""

from __future__ import annotations

from pipeline.evaluate.interface import compare, evaluate
from pipeline.evaluate.results import Results
from pipeline.export.interface import export
from pipeline.measure.interface import measure
from pipeline.measure.measure_options import OptionTables, measure_options
from pipeline.prune.interface import Pruned, prune
from pipeline.tables.load import OutputTables, load

__all__ = [
    "OptionTables",
    "OutputTables",
    "Pruned",
    "Results",
    "compare",
    "evaluate",
    "export",
    "load",
    "measure",
    "measure_options",
    "prune",
]
