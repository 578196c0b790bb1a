"""Errors are told with the line of the user's own code that raised them; those of the program are sentences."""

from __future__ import annotations

import importlib

import pytest

from pipeline.common.errors import plain
from pipeline.config.sparsity import parse

OWN = """
import json
class LastBlocks:
    def decide(self, what):
        if what == "program":
            from pipeline.config.sparsity import parse
            return parse("much")
        if what == "library":
            return json.loads("")
        try:
            return {}[what]
        except KeyError as error:
            raise RuntimeError("no score") from error
"""


def told(call) -> str:
    with pytest.raises(Exception) as caught:
        call()
    return plain(caught.value)


def test_an_error_of_ones_own_code_names_function_file_and_line(tmp_path, monkeypatch):
    path = tmp_path / "code_of_ones_own.py"
    path.write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    pruner = importlib.import_module(path.stem).LastBlocks()
    place = f"(in LastBlocks.decide, {path}, line"
    assert told(lambda: pruner.decide("x")) == f"RuntimeError: no score {place} 11)"
    assert told(lambda: pruner.decide("library")).endswith(f"{place} 9)")
    assert told(lambda: pruner.decide("program")) == told(lambda: parse("much"))
