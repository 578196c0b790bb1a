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
# Most characters of a name in Weights & Biases and of a short one, and the characters that it refuses in addresses.
_WANDB_LONGEST, _WANDB_SHORTER, _WANDB_REFUSED = 128, 64, "/\\#?%:"
_WANDB_SHORT, _WANDB_ADDRESS = ("job_type", "tags"), ("project", "entity", "id")


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
    """Return a sentence for each name of a run that W&B refuses or would cut."""
    names = [(key, wandb[key]) for key in ("project", "entity", "id", "name", "group", "job_type")]
    names += [("tags", tag) for tag in wandb["tags"]]
    found = []
    for key, name in names:
        if name is None:
            continue
        longest = _WANDB_LONGEST if key not in _WANDB_SHORT else _WANDB_SHORTER
        trouble = _trouble(name)
        if trouble is None and len(name) > longest:
            trouble = f"has {len(name)} characters, more than {longest}"
        if trouble is None and key in _WANDB_ADDRESS and any(letter in _WANDB_REFUSED for letter in name):
            trouble = f"contains one of {' '.join(_WANDB_REFUSED)}"
        if trouble:
            found.append(f"wandb.{key}={name!r} {trouble}; give another wandb.{key}")
    return found
