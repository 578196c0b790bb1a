"""Values that no key of the configuration takes, whatever its type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

# Integers of this size and beyond do not fit where they are used.
_LARGEST = 2**63
# Keys that begin and end like this, such as _target_, would make Hydra call what they name.
_RESERVED = "_"


def troubles(value: object) -> Iterator[str]:
    """Yield what is impossible in a value, to be read after ``key=value``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and key.startswith(_RESERVED) and key.endswith(_RESERVED):
                yield f"contains the key {key}, which only YAML files in conf/ may set; remove it"
            yield from troubles(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from troubles(item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield "must be a finite number"
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        yield "is too large; give a smaller number"
    elif isinstance(value, str):
        if "\0" in value:
            yield "contains a NUL character; remove it"
        elif not _writable(value):
            yield "is not valid UTF-8; write it in UTF-8"


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
