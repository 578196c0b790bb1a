"""Facts from the model card of a checkpoint directory; nothing is made up where the card is silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

CARD, FACTS = "README.md", "pruning.json"
_FENCE = "---"


def known(card: Path) -> dict[str, str]:
    """Return the ``license`` that a card states, and ``base_model`` if it belongs to an export of this project.

    The ``base_model`` of any other card is what that model was made from, not the hub id of the model itself.
    """
    facts = front_matter(card)
    keys = ("license", "base_model") if (card.parent / FACTS).is_file() else ("license",)
    return {key: value for key in keys if isinstance(value := facts.get(key), str)}


def front_matter(card: Path) -> dict[str, Any]:
    """Return the YAML at the head of a model card; empty if there is none or it cannot be read."""
    try:
        lines = card.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    if not lines or lines[0].strip() != _FENCE or _FENCE not in lines[1:]:
        return {}
    try:
        facts = yaml.safe_load("\n".join(lines[1 : lines.index(_FENCE, 1)]))
    except yaml.YAMLError:
        return {}
    return facts if isinstance(facts, dict) else {}
