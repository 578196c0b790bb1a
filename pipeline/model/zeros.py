"""Parameters that make a tensor zero when they are zero, of products and sums; None where these are not known."""

from __future__ import annotations

from collections.abc import Iterable


def first_of(known: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """Return parameters that make a product zero: those of the first factor of which any are known."""
    return next((zero for zero in known if zero is not None), None)


def all_of(known: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """Return parameters that make a sum zero: those of all terms, if they are known."""
    zero: frozenset[str] = frozenset()
    for each in known:
        if each is None:
            return None
        zero |= each
    return zero
