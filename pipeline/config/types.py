"""Types of configuration values beyond Python's own, and checks that say in words why a value does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pipeline.config.choices import nearest


class Within(NamedTuple):
    """Limits of a number, both included, and the words for the numbers between them."""

    low: float
    high: float
    words: str


Positive = Annotated[int, Within(1, 2**31 - 1, "a whole number of at least 1")]
Count = Annotated[int, Within(0, 2**31 - 1, "a whole number of at least 0")]
Bits = Annotated[int, Within(2, 8, "a whole number from 2 to 8")]
# Random number generators take no larger seed.
Seed = Annotated[int, Within(0, 2**32 - 1, f"a whole number from 0 to {2**32 - 1}")]
# A random model is for trials.
Depth = Annotated[int, Within(1, 1000, "a whole number from 1 to 1000")]
Width = Annotated[int, Within(1, 8192, "a whole number from 1 to 8192")]
# Outside of these limits, exponentials of logits are not numbers.
Temperature = Annotated[float, Within(1e-3, 1e3, "a number from 0.001 to 1000")]
Share = Annotated[float, Within(1e-6, 1, "a fraction above 0 and at most 1, such as 0.9")]
Part = Annotated[float, Within(1e-9, 1 - 1e-9, "a fraction above 0 and below 1, such as 0.1")]
Inches = Annotated[float, Within(2, 40, "a number of inches from 2 to 40")]
# Units that a pruner removes and an integer sparsity counts; sublayer is either kind, in one ranking.
UnitKind = Literal["attention", "mlp", "sublayer", "block"]
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    NoneType: "null",
}


def misfits(key: str, kind: Any, value: object) -> list[str]:
    """Return sentences about a value that is not of its type; empty if it is.

    A required text must not be blank. For an unknown choice, the nearest one is named.
    """
    items = get_args(kind)[0] if get_origin(kind) is list else None
    if fits(kind, value) and not (kind is str and not str(value).strip()) and not (_choices(items) and not value):
        return []
    if (known := _choices(kind)) and not isinstance(value, list | Mapping):
        return [f"{key}={value} does not exist; {nearest(str(value), known)}"]
    if (known := _choices(items)) and value == []:
        return [f"{key} is empty; choose from {', '.join(known)}"]
    if known and isinstance(value, list):
        absent = [item for item in value if item not in known]
        return [f"{key}: {item} does not exist; {nearest(str(item), known)}" for item in absent]
    return [f"{key}={value} should be {_in_words(kind)}"]


def fits(kind: Any, value: object) -> bool:
    """Return whether a value, as YAML gives it, is of a type: a number, text, choice, or a list or pairs of these."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits(inner[0], value) and all(limit.low <= value <= limit.high for limit in inner[1:])
    if origin in (Union, UnionType):
        return any(fits(one, value) for one in inner)
    if origin is Literal:
        return value in inner
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and all(fits(inner[0], item) for item in value)
    if origin is dict:
        # YAML reads keys such as 0 as numbers, which stand for their text.
        return isinstance(value, Mapping) and all(
            isinstance(key, str | int) and fits(inner[1], item) for key, item in value.items()
        )
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


def converted(kind: Any, value: Any) -> Any:
    """Return a whole number as a float or as its text where only these are taken; other values as they are.

    A single value stands for the list of it, see `listed`.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return converted(inner[0], value)
    if origin is list and isinstance(value, list):
        return [converted(inner[0], item) for item in value]
    if isinstance(value, list) and (lists := [one for one in inner if get_origin(one) is list]):
        return converted(lists[0], value)
    kinds = inner if origin in (Union, UnionType) else (kind,)
    if type(value) is int and int not in kinds and (own := [one for one in (float, str) if one in kinds]):
        return own[0](value)
    return value if (several := listed(kind, value)) is value else converted(kind, several)


def listed(kind: Any, value: Any) -> Any:
    """Return a single text or number as a list of one where only a list is taken, or null; others as they are."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    takes = {get_origin(one) for one in kinds if one is not NoneType} == {list}
    return [value] if takes and isinstance(value, str | int | float) and not isinstance(value, bool) else value


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _in_words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return inner[1].words
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (list, tuple):
        return f"a list, each item {_in_words(inner[0])}"
    if origin is dict:
        return f"a mapping {{key: {_in_words(inner[1])}}}"
    return _WORDS.get(kind, "a value")
