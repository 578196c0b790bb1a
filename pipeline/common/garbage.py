"""Garbage collection around imports, which make hundreds of thousands of objects and no garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage within the block; if it has imported anything, what exists then is never looked through again.

    The collector would otherwise take a quarter of the time of large imports.
    """
    was_on, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        # Without new modules, this may be a later job, and some of what exists the garbage of an earlier one.
        if len(sys.modules) > before:
            gc.freeze()
        if was_on:
            gc.enable()
