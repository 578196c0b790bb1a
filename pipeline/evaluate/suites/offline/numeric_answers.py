"""Numeric answers of word problems: read from the data, and compared with a model's line."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

# 5:45 and 3:4, 1 1/2, 5/2, 1,234.5, .5. A sign counts unless it is a dash between words or numbers.
_NUMBER = re.compile(
    r"(?P<parts>\d+(?::\d+)+)"
    r"|(?P<sign>(?<![\w.)])[-−])?"
    r"(?:(?:(?P<whole>\d+) )?(?P<over>\d+)/(?P<under>0*[1-9]\d*)(?![\d/])"
    r"|(?P<decimal>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+))"
)
# What may stand beside an answer's number: a unit, such as "apples", "km/hour", "sq. inches", "p.m.".
_UNIT = re.compile(r"(?:st|nd|rd|th)?[\s\w./'-]*")

Number = Fraction | tuple[int, ...]


def first_number(text: str) -> Number | None:
    """Return the first number in a text: an exact fraction, or a tuple for a ratio or time of day such as ``3:4``."""
    found = _NUMBER.search(text)
    return None if found is None else _value(found)


def read_number(answer: str) -> Number | None:
    """Return the number that an answer of the data consists of, with or without a unit after it.

    Returns None for anything else: an answer in words, several numbers, a number in the middle of a text.
    """
    found = _NUMBER.match(answer.strip())
    if found is None:
        return None
    unit = answer.strip()[found.end() :]
    return None if re.search(r"\d", unit) or not _UNIT.fullmatch(unit) else _value(found)


def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Score 1 if the first number of the first line written equals the answer's exactly; units are not compared.

    Ratios and times of day must be written as in the data, and ``0.5`` equals ``1/2``.
    """
    lines = results[0].strip().splitlines()
    written = first_number(lines[0]) if lines else None
    return {"exact_match": float(written is not None and written == read_number(doc["answer"]))}


def _value(found: re.Match[str]) -> Number:
    if found["parts"]:
        return tuple(int(part) for part in found["parts"].split(":"))
    if found["under"]:
        value = int(found["whole"] or 0) + Fraction(int(found["over"]), int(found["under"]))
    else:
        value = Fraction(found["decimal"].replace(",", ""))
    return -value if found["sign"] else value
