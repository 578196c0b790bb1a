"""The fields of a component's constructor, read from its source text: no import, so checks stay fast."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass
class Signature:
    """Field annotations by name, and the literal class-level constants, base classes included."""

    fields: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)


@cache
def signature(target: str) -> Signature:
    """Signature of the class with a dotted path. Raises ValueError if its source is not there."""
    module, _, name = target.rpartition(".")
    tree = _source(module)
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None:
        raise ValueError(f"there is no class {name} in {module}")
    found = Signature()
    for base in node.bases:
        if isinstance(base, ast.Name) and (path := _resolve(tree, module, base.id)):
            inherited = signature(path)
            found.fields |= inherited.fields
            found.constants |= inherited.constants
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            _read(statement, statement.target.id, found)
    return found


def _read(statement: ast.AnnAssign, name: str, found: Signature) -> None:
    annotation = ast.unparse(statement.annotation)
    if not annotation.startswith("ClassVar"):
        found.fields[name] = annotation
    elif statement.value is not None:
        try:
            found.constants[name] = ast.literal_eval(statement.value)
        except ValueError:
            found.constants.pop(name, None)


def _source(module: str) -> ast.Module:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ValueError(f"there is no module {module}")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _resolve(tree: ast.Module, module: str, name: str) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return f"{module}.{name}"
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return f"{node.module}.{name}"
    return None


@cache
def architectures() -> dict[str, bool]:
    """The supported model types, and whether each is an encoder, from the source text of ``pipeline.model.decoder``."""
    tree = _source("pipeline.model.decoder")
    table = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "ARCHITECTURES"
    )
    assert isinstance(table, ast.Dict)
    return {
        ast.literal_eval(key): isinstance(value, ast.Call) and any(word.arg == "encoder" for word in value.keywords)
        for key, value in zip(table.keys, table.values, strict=True)
        if key is not None
    }


# Numbers beyond this are no counts of anything here.
_LARGEST = 2**31
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "None": "null",
    "Positive": "a whole number of at least 1",
    "Bits": "a whole number from 2 to 8",
}


def misfit(annotation: str, value: object) -> str | None:
    """What ``value`` should be if it does not fit the annotation, else None. Unknown annotations fit everything.

    A text that has to be there is not blank either.
    """
    choices = _choices(ast.parse(annotation, mode="eval").body)
    if any(_fits(choice, value, blank=len(choices) > 1) for choice in choices):
        return None
    return " or ".join(map(_in_words, choices))


def _choices(node: ast.expr) -> list[ast.expr]:
    """The alternatives of an annotation, in their order."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_choices(node.left), *_choices(node.right)]
    return [node]


def _fits(node: ast.expr, value: object, blank: bool) -> bool:
    if isinstance(node, ast.Subscript):
        kind = ast.unparse(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if kind in ("list", "tuple"):
            return isinstance(value, list | tuple) and all(_any_fits(inner[0], item) for item in value)
        if kind == "dict":
            pairs = value.items() if isinstance(value, Mapping) else [(None, None)]
            return isinstance(value, Mapping) and all(
                _key_fits(inner[0], key) and _any_fits(inner[1], item) for key, item in pairs
            )
        return True
    return _fits_word(ast.unparse(node), value, blank)


def _any_fits(node: ast.expr, value: object) -> bool:
    return any(_fits(choice, value, blank=True) for choice in _choices(node))


def _key_fits(node: ast.expr, key: object) -> bool:
    """YAML reads keys such as 0 as numbers, which stand for their text."""
    return ast.unparse(node) != "str" or isinstance(key, str | int)


def _fits_word(word: str, value: object, blank: bool) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = whole or isinstance(value, float)
    tests: dict[str, bool] = {
        "None": value is None,
        "bool": isinstance(value, bool),
        "int": whole,
        "float": number,
        "str": isinstance(value, str) and (blank or bool(value.strip())),
        "Positive": isinstance(value, int) and whole and 1 <= value < _LARGEST,
        "Bits": isinstance(value, int) and whole and 2 <= value <= 8,
    }
    return tests.get(word, True)


def _in_words(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if ast.unparse(node.value) == "dict":
            return "pairs {key: value}" if len(inner) < 2 else f"pairs {{key: {_in_words(inner[1])}}}"
        return f"a list, each item {_in_words(inner[0])}"
    return _WORDS.get(ast.unparse(node), "a value")
