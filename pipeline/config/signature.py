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
from pipeline.config.types import listed, misfits

# Names that annotations of fields may contain.
_NAMES = {**vars(types), "Any": Any, "Literal": Literal}
# What the classes of each group derive from.
BASES = {
    "model": "pipeline.model.sources.base.Model",
    "pruner": "pipeline.prune.base.Pruner",
    "task": "pipeline.evaluate.suite.TaskSuite",
    "calibration": "pipeline.data.calibration.base.CalibrationSet",
}
_PLAIN_BASES = ("Protocol", "ABC", "object", "Generic")


@dataclass
class Signature:
    """Types of the fields by name, and the literal class-level constants, base classes included.

    ``bases`` are the dotted paths of all classes that it derives from, itself included, as far as the source tells;
    ``known`` says that it tells all.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    bases: set[str] = field(default_factory=set)
    known: bool = True


@cache
def signature(target: str) -> Signature:
    """Return the signature of the class with a dotted path. Raises ValueError if its source is not there."""
    module, _, name = target.rpartition(".")
    tree = _source(module)
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None:
        # A package may show a class that one of its modules defines.
        if path := _imported(tree, module, name):
            return signature(path)
        raise ValueError(f"{module} has no class {name}")
    found = Signature(bases={target})
    for base in node.bases:
        path = _resolve(tree, module, ast.unparse(base))
        try:
            inherited = signature(path) if path else Signature(known=False)
        except ValueError:
            inherited = Signature(known=False)
        found.fields |= inherited.fields
        found.constants |= inherited.constants
        found.bases |= inherited.bases
        # What the standard library defines is nothing that a component could derive from.
        found.known &= inherited.known or ast.unparse(base) in _PLAIN_BASES
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
        own = signature(node["_target_"])
    except ValueError as error:
        return [f"conf/{group}: _target_ {node['_target_']}: {error}"]
    base, fields = BASES.get(group), own.fields
    if base is not None and own.known and base not in own.bases:
        return [f"{group}: {node['_target_']} is not a {group}; derive it from {base}"]
    found = [
        f"conf/{group}: {node['_target_']} needs {key}, which its YAML file lacks" for key in fields if key not in node
    ]
    for key, value in node.items():
        if key != "_target_" and key not in fields:
            found.append(f"{group}.{key}: unknown key; {nearest(key, fields)}")
        elif key != "_target_" and key not in unknown:
            found += misfits(f"{group}.{key}", fields[key], value)
    return found


def listed_component(node: Any) -> Any:
    """Return a group's node with single values as lists where its constructor takes lists; other nodes as they are."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return node
    try:
        fields = signature(node["_target_"]).fields
    except ValueError:
        return node
    return {key: listed(fields[key], value) if key in fields else value for key, value in node.items()}


def takes_sparsity(pruner: str) -> bool:
    """Return whether a pruner takes a sparsity; one without a YAML file in conf does."""
    return pruner not in choices_of("pruner") or bool(declared(read_choice("pruner", pruner), "accepts"))


def _read(statement: ast.AnnAssign, name: str, found: Signature) -> None:
    annotation = ast.unparse(statement.annotation)
    if not annotation.startswith("ClassVar"):
        try:
            found.fields[name] = eval(annotation, _NAMES)
        except (NameError, TypeError, SyntaxError):
            # A type of the user's own: its constructor says what does not fit.
            found.fields[name] = Any
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
    """Return the dotted path of a class that a module names, perhaps through a module that it has imported."""
    first, dot, rest = name.partition(".")
    if any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body):
        return f"{module}.{name}"
    if path := _imported(tree, module, first):
        return f"{path}{dot}{rest}"
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    return name if name.rpartition(".")[0] in imported else None


def _imported(tree: ast.Module, module: str, name: str) -> str | None:
    """Return the dotted path of what a module imports under a name, or None."""
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom | ast.Import):
            continue
        alias = next((alias for alias in node.names if (alias.asname or alias.name) == name), None)
        if alias is None:
            continue
        if isinstance(node, ast.Import):
            return alias.name
        return f"{_absolute(node, module)}.{alias.name}"
    return None


def _absolute(node: ast.ImportFrom, module: str) -> str:
    """Return the module that an import names, which may be relative to the module that it stands in."""
    if not node.level:
        return node.module or ""
    spec = importlib.util.find_spec(module)
    package = spec.parent if spec and spec.parent else ""
    parts = package.split(".")
    above = ".".join(parts[: len(parts) - node.level + 1])
    return f"{above}.{node.module}" if node.module else above
