"""Further measures that a job asks for with ``measure.extra``: their files, and checks of what these name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.choices import choices_of, nearest, read_choice
from pipeline.config.defaults_lists import defaults_problem
from pipeline.config.signature import component_problems, declared
from pipeline.measure.columns import TAKEN

GROUP, KEY = "measures", "measure.extra"
CONTRACTS = "Measure or SetMeasure of pipeline.measure.base"


def extra_problems(names: Sequence[str]) -> list[str]:
    """Return sentences about choices of ``conf/measures`` that are unknown, given twice, or do not fit their class.

    The classes are read from source, without importing them.
    """
    known = choices_of(GROUP)
    found = [f"{KEY}: {name} does not exist; {nearest(str(name), known)}" for name in names if name not in known]
    found += [f"{KEY} lists {name} twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    owners: dict[str, str] = {}
    for name in dict.fromkeys(name for name in names if name in known):
        if problem := defaults_problem(GROUP, name):
            found.append(problem)
            continue
        node = read_choice(GROUP, name)
        if "_target_" not in node:
            found.append(f"conf/{GROUP}/{name} has no _target_; give the dotted path of a class")
            continue
        found += component_problems(f"{GROUP}/{name}", node) or _column_problems(name, node, owners)
    return found


def _column_problems(name: str, node: Mapping[str, Any], owners: dict[str, str]) -> list[str]:
    """Check the columns of a measure against all others, and enter them under its name in ``owners``."""
    columns, target, where = declared(node, "columns"), node["_target_"], f"conf/{GROUP}/{name}"
    if not columns:
        way = f'derive it from {CONTRACTS}, with columns: ClassVar[tuple[str, ...]] = ("a_name",)'
        return [f"{where}: {target} has no columns; {way}"]
    if not isinstance(columns, tuple) or not all(isinstance(each, str) and each.isidentifier() for each in columns):
        return [f"{where}: columns of {target} should be a tuple of names made of letters, digits and _"]
    found = [
        f"{KEY}: {name} has the column {column} of {owners.get(column, 'the tables')}; give it another name"
        for column in columns
        if column in TAKEN or column in owners
    ]
    owners.update(dict.fromkeys(columns, name))
    return found
