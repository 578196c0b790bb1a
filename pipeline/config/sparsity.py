"""The sparsity value: one word on the command line, three meanings.

``0.4`` is a fraction, ``2of4`` or ``2:4`` removes N weights of every group of M, and an integer of at least
one is a number of units (blocks or sublayers). Zero, however written, removes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_PATTERN = re.compile(r"(\d+)\s*(?:of|:)\s*(\d+)", re.IGNORECASE)
_INTEGER = re.compile(r"\d+")
KINDS = {
    "fraction": "a fraction between 0 and 1 such as 0.4",
    "units": "a whole number of units such as 8",
    "pattern": "a pattern such as 2:4",
}
# Significant digits of a fraction: sums such as 0.1 + 0.2 are off from the 17th on.
_DIGITS = 12


@dataclass(frozen=True)
class Sparsity:
    """A parsed sparsity. ``given`` is the canonical spelling used in tables and keys.

    ``kind`` is ``fraction``, ``units`` or ``pattern``; only the fields of that kind are set. Sparsity zero is
    the fraction 0, which every pruner accepts.
    """

    given: str
    kind: str
    fraction: float = 0.0
    units: int = 0
    n: int = 0
    m: int = 0

    @property
    def is_zero(self) -> bool:
        return self.kind == "fraction" and self.fraction == 0.0

    @property
    def value(self) -> float:
        """The fraction, N / M of a pattern, or the number of units."""
        return {"pattern": self.n / max(self.m, 1), "units": float(self.units), "fraction": self.fraction}[self.kind]

    def units_of(self, total: int) -> int:
        """Return the number of units out of ``total``: a fraction is rounded, a unit count is taken as it is.

        Raises ValueError for a pattern, and for more units than there are.
        """
        if self.kind == "pattern":
            raise ValueError(f"sparsity={self.given} is a weight pattern; give a fraction or a number of units")
        if self.kind == "units" and self.units > total:
            raise ValueError(f"sparsity={self.given} asks for {self.units} units, but there are only {total}")
        return self.units if self.kind == "units" else round(self.fraction * total)


def parse(value: object) -> Sparsity:
    """Read a sparsity from a config value. Raises ValueError in plain words if it is not one.

    Fractions are rounded to 12 significant digits: ``0.30000000000000004``, as sums and ranges give it, is 0.3.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"sparsity={value!r} is not a sparsity; give {', '.join(KINDS.values())}")
    text = str(value).strip()
    if match := _PATTERN.fullmatch(text):
        n, m = int(match[1]), int(match[2])
        if not 0 < n < m:
            raise ValueError(f"sparsity={text} prunes {n} of every {m}; N:M needs 0 < N < M, such as 2:4")
        return Sparsity(f"{n}:{m}", "pattern", n=n, m=m)
    if _INTEGER.fullmatch(text):
        units = int(text)
        return Sparsity(str(units), "units", units=units) if units else Sparsity("0", "fraction")
    try:
        fraction = rounded(float(text))
    except ValueError:
        raise ValueError(f"sparsity={text} is not a sparsity; give {', '.join(KINDS.values())}") from None
    if not 0.0 <= fraction <= 1.0:
        hint = f"; for {text} percent write {fraction / 100:g}" if 2 < fraction <= 100 else ""
        raise ValueError(f"sparsity={text} is outside 0..1{hint}")
    return exactly(fraction)


def unaccepted(pruner: str, accepts: Collection[str], sparsity: Sparsity) -> str | None:
    """Return a sentence if a pruner that accepts these kinds of sparsity does not take this one, else None."""
    if sparsity.is_zero or sparsity.kind in accepts:
        return None
    wanted = " or ".join(KINDS[kind] for kind in accepts)
    return f"sparsity={sparsity.given} is {KINDS[sparsity.kind].split(' such')[0]}, but pruner={pruner} takes {wanted}"


def rounded(fraction: float) -> float:
    """Return a fraction as people would write it: 0.1 + 0.2 is 0.3."""
    return float(f"{fraction:.{_DIGITS}g}")


def exactly(fraction: float) -> Sparsity:
    """Return the sparsity of a fraction that was computed rather than written, without rounding it."""
    return Sparsity(repr(fraction) if fraction else "0", "fraction", fraction=fraction or 0.0)
