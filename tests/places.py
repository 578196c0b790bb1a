"""Where tests and program lie, for tests that start processes."""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
# What a process needs to import the program, and what tests share.
PYTHONPATH = os.pathsep.join([str(ROOT), str(TESTS)])
