"""Garbage around imports: none is collected while they run, and only what they made is left alone after them."""

from __future__ import annotations

import gc
import sys
from types import ModuleType

import pytest

from pipeline.common.garbage import importing


@pytest.mark.parametrize("imports", [True, False])
def test_only_what_was_imported_is_left_alone(imports: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
        if imports:
            monkeypatch.setitem(sys.modules, "of_this_test", ModuleType("of_this_test"))
    assert gc.isenabled()
    assert (gc.get_freeze_count() > before) == imports
