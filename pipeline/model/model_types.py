"""Model types that the installed transformers knows, read from its sources: importing it takes seconds."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_AUTO = Path("models/auto/modeling_auto.py")


@cache
def _types(mapping: str) -> tuple[str, ...]:
    """Return the model types of one of transformers' mappings from types to classes."""
    spec = find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations
    text = (Path(spec.submodule_search_locations[0]) / _AUTO).read_text(encoding="utf-8")
    start = text.index(f"\n{mapping} = ")
    return tuple(re.findall(r'^        \("([^"]+)",', text[start : text.index("\n)", start)], re.MULTILINE))


def causal_types() -> tuple[str, ...]:
    """Return the types with a class that predicts the next token."""
    return _types("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")


def encoder_types() -> tuple[str, ...]:
    """Return the types with a class that fills in masked tokens."""
    return _types("MODEL_FOR_MASKED_LM_MAPPING_NAMES")


def is_encoder(config: Any) -> bool:
    """Return whether a configuration, an object or the fields of its file, is that of an encoder.

    A type that fills in masked tokens is one, unless the configuration says that it decodes; without any such field,
    unless the type is made of an encoder and a decoder.
    """
    fields = config if isinstance(config, dict) else vars(config) | {"model_type": config.model_type}
    kind = fields.get("model_type")
    both = fields.get("is_encoder_decoder", kind in _types("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"))
    causal = kind in causal_types() and fields.get("causal")
    return kind in encoder_types() and not (fields.get("is_decoder") or causal or both)


def unsuited(kind: str, encoder: bool, decoder_only: bool, only: Collection[str]) -> str | None:
    """Return why a pruner with these limits does not work on a model, with the way out; None if it does.

    ``only`` are the model types that it works on; empty for all.
    """
    if only and kind not in only:
        return f"works on {', '.join(sorted(only))} only, not on {kind}; give another pruner or one of those models"
    if decoder_only and encoder:
        return f"needs a model that predicts tokens, and {kind} is an encoder; give another pruner, such as wanda"
    return None
