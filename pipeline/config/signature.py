"""Fields, their types, and constants of a component, read from source text: no import, so checks stay fast."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipeline.config import types
from pipeline.config.choices import choices_of, nearest, read_choice
from pipeline.config.types import misfits

# Names that annotations of fields may contain.
_NAMES = {**vars(types), "Any": Any, "Literal": Literal}


@dataclass
class Signature:
    """Types of the fields by name, and the literal class-level constants, base classes included."""

    fields: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)


@cache
def signature(target: str) -> Signature:
    """Return the signature of the class with a dotted path. Raises ValueError if its source is not there."""
    module, _, name = target.rpartition(".")
    tree = _source(module)
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None:
        raise ValueError(f"{module} has no class {name}")
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


def declared(component: Mapping[str, Any], name: str) -> Any:
    """Return the value of a name in a component's configuration, else the constant of its class; None if in neither."""
    try:
        return component[name] if name in component else signature(component["_target_"]).constants.get(name)
    except ValueError:
        return None


def component_problems(group: str, node: Any, unknown: Collection[str] = ()) -> list[str]:
    """Return sentences about what in a group's node does not fit the constructor that its ``_target_`` names.

    Keys in ``unknown`` have no value yet.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        return [f"{group} must be one of the choices in conf/{group}: {', '.join(choices_of(group))}"]
    try:
        fields = signature(node["_target_"]).fields
    except ValueError as error:
        return [f"conf/{group}: _target_ {node['_target_']}: {error}"]
    found = [f"conf/{group}: _target_ needs {key}, which is missing" for key in fields if key not in node]
    for key, value in node.items():
        if key != "_target_" and key not in fields:
            found.append(f"{group}.{key}: unknown key; {nearest(key, fields)}")
        elif key != "_target_" and key not in unknown:
            found += misfits(f"{group}.{key}", fields[key], value)
    return found


@cache
def takes_sparsity(pruner: str) -> bool:
    """Return whether a pruner takes a sparsity; one without a YAML file in conf does."""
    return pruner not in choices_of("pruner") or bool(declared(read_choice("pruner", pruner), "accepts"))


def _read(statement: ast.AnnAssign, name: str, found: Signature) -> None:
    annotation = ast.unparse(statement.annotation)
    if not annotation.startswith("ClassVar"):
        found.fields[name] = eval(annotation, _NAMES)
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
        raise ValueError(f"no module named {module}")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _resolve(tree: ast.Module, module: str, name: str) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return f"{module}.{name}"
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return f"{node.module}.{name}"
    return None
