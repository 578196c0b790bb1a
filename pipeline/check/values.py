"""Values that no key of the configuration takes, whatever it is about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.check.words import shortened
from pipeline.config.schema import GROUPS

# Beyond these, whole numbers do not fit where they are used, and random numbers cannot be seeded.
_LARGEST, _LARGEST_SEED = 2**63, 2**32
# Outside of these, exponentials of logits are no numbers; and more steps than a model has positions.
_COLDEST, _HOTTEST, _MOST_STEPS = 1e-3, 1e3, 10_000
# A random model is for trials.
_MOST_LAYERS, _WIDEST = 1000, 8192
# With keys like these in a value, Hydra would call what they name.
_RESERVED = "_"


def value_problems(plain: Mapping[str, Any]) -> list[str]:
    """Plain sentences about values of one resolved configuration that cannot be meant."""
    found = []
    for key, value in plain.items():
        if key in GROUPS and isinstance(value, Mapping):
            # A choice's own _target_ comes from its YAML file; below it there is none.
            for name, item in value.items():
                found += _of(f"{key}.{name}", item, finite=True)
                if name == "seed" and item != plain["seed"]:
                    found += _seed(f"{key}.seed", item)
        else:
            # Numbers of the root have their own limits.
            found += _of(str(key), value, finite=False)
    return found + _seed("seed", plain["seed"]) + _extremes(plain) + _random_model(plain["model"])


def _of(key: str, value: object, finite: bool) -> list[str]:
    return [f"{key}={shortened(value)} {trouble}" for trouble in dict.fromkeys(_troubles(value, finite))]


def _seed(key: str, value: object) -> list[str]:
    if isinstance(value, int) and value >= _LARGEST_SEED:
        return [f"{key}={shortened(value)} should be below {_LARGEST_SEED}"]
    return []


def _extremes(plain: Mapping[str, Any]) -> list[str]:
    """Temperatures and steps that are numbers of the right kind, but nothing to compute with."""
    capture = plain["capture"]
    given = [("capture.temperature", capture["temperature"])]
    given += [("measure.temperatures", value) for value in plain["measure"]["temperatures"] or ()]
    found = [
        f"{key}={value} should be from {_COLDEST} to {_HOTTEST:g}"
        for key, value in given
        if 0 < value < _COLDEST or _HOTTEST < value < math.inf
    ]
    if capture["steps"] > _MOST_STEPS:
        found.append(f"capture.steps={shortened(capture['steps'])} should be at most {_MOST_STEPS}")
    return found


def _random_model(model: Any) -> list[str]:
    """Whether the sizes of a random model go together."""
    if not isinstance(model, Mapping) or not {"hidden", "heads", "layers"} <= model.keys():
        return []
    hidden, heads, layers = (model[key] for key in ("hidden", "heads", "layers"))
    if not all(isinstance(size, int) and size >= 1 for size in (hidden, heads)):
        return []
    found = []
    if hidden % (2 * heads):
        found.append(
            f"model.hidden={shortened(hidden)} should be a multiple of twice model.heads={shortened(heads)}, such as "
            f"{shortened(16 * heads)}"
        )
    if hidden > _WIDEST:
        found.append(f"model.hidden={shortened(hidden)} should be at most {_WIDEST}, since this model is for trials")
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        found.append(
            f"model.layers={shortened(layers)} should be at most {_MOST_LAYERS}, since this model is for trials"
        )
    return found


def _troubles(value: object, finite: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and key.startswith(_RESERVED) and key.endswith(_RESERVED):
                yield f"holds the key {key}, which is for the YAML files of conf/; leave it out"
            yield from _troubles(item, finite)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _troubles(item, finite)
    elif isinstance(value, float) and finite and not math.isfinite(value):
        yield "must be a finite number"
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        yield "is too large a number; give a smaller one"
    elif isinstance(value, str):
        if "\0" in value:
            yield "holds a NUL character; leave that out"
        elif not _writable(value):
            yield "is not valid text; write it in UTF-8"


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
