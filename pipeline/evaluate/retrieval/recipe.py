"""The recipe by which a model turns a text into one vector. Light to import, for checks of its values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

POOLINGS = ("mean", "last", "cls")
# Smallest number of tokens that leaves room for a text between the special ones.
SHORTEST = 4


@dataclass(frozen=True)
class Recipe:
    """Prefixes of texts, and the way in which final hidden states become one vector.

    Attributes:
        pooling: ``mean`` over all tokens, ``last`` token or first token (``cls``).
        query_prefix: text in front of every query, such as an instruction.
        document_prefix: text in front of every document.
        append_eos: whether the text ends with the end-of-text token, which ``last`` then reads.
        max_length: tokens after which a text is cut, special tokens and prefix included.
    """

    pooling: str = "mean"
    query_prefix: str = ""
    document_prefix: str = ""
    append_eos: bool = False
    max_length: int = 512

    def __post_init__(self) -> None:
        if problem := pooling_problem("pooling", self.pooling):
            raise ValueError(problem)
        length = self.max_length
        if isinstance(length, bool) or not isinstance(length, int) or length < SHORTEST:
            raise ValueError(f"max_length={length} should be a whole number of at least {SHORTEST}")
        for key in ("query_prefix", "document_prefix"):
            if not isinstance(getattr(self, key), str):
                raise ValueError(f"model.embedding: {key}={getattr(self, key)!r} should be a string")
        if not isinstance(self.append_eos, bool):
            raise ValueError(f"model.embedding: append_eos={self.append_eos!r} should be true or false")


def recipe_of(own: Mapping[str, Any] | None, **asked: Any) -> Recipe:
    """Return the model's ``own`` recipe, overridden by the ``asked`` values that are not None.

    Raises ValueError for an unknown key, an unknown pooling and a length that is too small.
    """
    known = [field.name for field in fields(Recipe)]
    for key in own or {}:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"model.embedding: unknown key {key}; {hint}choose from {', '.join(known)}")
    return Recipe(**{key: value for key, value in [*(own or {}).items(), *asked.items()] if value is not None})


def pooling_problem(key: str, value: object) -> str | None:
    """Return a plain sentence if ``value`` is not the name of a pooling, else None."""
    if value in POOLINGS:
        return None
    near = difflib.get_close_matches(str(value), POOLINGS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{key}={value} does not exist; {hint}choose from {', '.join(POOLINGS)}"
