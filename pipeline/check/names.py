"""Checks of the names on the command line, which identify things in tables, records and file names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.choices import choices_of
from pipeline.config.schema import GROUPS

# Most characters of a name in a table or in a heading.
LONGEST = 200
# Models are named after their paths; other names have no slashes.
_WORD = re.compile(r"\w[\w .+-]*")
# Separates the parts of a settings line, of which the first is a model's name.
_SEPARATOR = " · "
# Most characters of a project or entity in Weights & Biases, and the characters that it refuses.
_WANDB_LONGEST, _WANDB_REFUSED = 128, "/\\#?%:"


def name_problems(plain: Mapping[str, Any], own: Mapping[str, Sequence[object]]) -> list[str]:
    """Return a sentence for each name of one resolved configuration that would mislead or cannot be written.

    ``own`` holds the names that each group's choice has unless it is given another.
    """
    found = []
    for group in GROUPS:
        node = plain.get(group)
        name = node.get("name") if isinstance(node, Mapping) else None
        if not isinstance(name, str) or not name.strip():
            continue  # The check of its constructor's types reports it.
        if trouble := _trouble(name):
            found.append(f"{group}.name={name!r} {trouble}; give another {group}.name")
        elif group != "model" and not _WORD.fullmatch(name):
            found.append(f"{group}.name={name} should consist of letters and digits, with spaces or .+-_ between them")
        elif _is_anothers(group, name, own):
            found.append(f"{group}.name={name} is the name of another choice in conf/{group}; give a different name")
    return found + _wandb(plain["wandb"])


def _is_anothers(group: str, name: str, own: Mapping[str, Sequence[object]]) -> bool:
    """Return whether a name is that of a choice other than the one made; results would be taken for its results."""
    composed, chosen = own.get(group, (None, None))
    if group == "model" or chosen is None:
        return name != composed and name in choices_of(group)
    return name != chosen and name in choices_of(group)


def _trouble(name: str) -> str | None:
    if not name.strip():
        return "is empty"
    if len(name) > LONGEST:
        return f"has {len(name)} characters, more than {LONGEST}"
    if odd := next((letter for letter in name if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")), None):
        return f"contains the character {odd!r}"
    return f"contains {_SEPARATOR!r}, which separates the parts of a settings line" if _SEPARATOR in name else None


def _wandb(wandb: Mapping[str, Any]) -> list[str]:
    found = []
    for key in ("project", "entity"):
        name = wandb[key]
        if name is None:
            continue
        trouble = _trouble(name)
        if trouble is None and len(name) > _WANDB_LONGEST:
            trouble = f"has {len(name)} characters, more than {_WANDB_LONGEST}"
        if trouble is None and any(letter in _WANDB_REFUSED for letter in name):
            trouble = f"contains one of {' '.join(_WANDB_REFUSED)}"
        if trouble:
            found.append(f"wandb.{key}={name!r} {trouble}; give another wandb.{key}")
    return found
