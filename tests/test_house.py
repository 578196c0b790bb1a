"""The rules of the house that the linters do not know: sizes, and tests in the folder of what they test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from places import ROOT, TESTS

PROGRAM = ROOT / "pipeline"
MOST_LINES, LONGEST_FUNCTION = 300, 60
# Folders of the tests that hold what they need rather than tests.
NO_TESTS = ("faults", "no_flock", "__pycache__")


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file with its number of lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_file_and_no_function_is_too_long_to_read():
    files = sorted(PROGRAM.rglob("*.py"))
    long_files = [path.name for path in files if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES]
    long_functions = [(path.name, name) for path in files for name, size in functions(path) if size > LONGEST_FUNCTION]
    assert (len(files) > 100, long_files, long_functions) == (True, [], [])


def test_tests_lie_in_folders_named_after_those_of_the_program():
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name not in NO_TESTS}
    assert folders and folders <= {path.name for path in PROGRAM.iterdir() if path.is_dir()}


def test_every_folder_of_the_program_says_what_it_is():
    packages = [path for path in PROGRAM.rglob("__init__.py") if path.parent != PROGRAM]
    assert [str(path) for path in packages if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_text_is_read_and_written_in_utf_8_whatever_the_locale():
    unsaid = [
        f"{path.name}:{node.lineno}"
        for path in PROGRAM.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("read_text", "write_text")
        and "encoding" not in {keyword.arg for keyword in node.keywords}
    ]
    assert unsaid == []
