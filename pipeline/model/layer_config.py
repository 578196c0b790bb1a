"""Per-block fields of a model's configuration, and how to cut them to the blocks that are kept.

Nothing in a configuration marks these fields: they are known by name. A list may have as many entries as there are
blocks by accident, so an unknown one of that length is refused, neither cut nor kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

# Fields with the number of blocks.
_DEPTHS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_blocks", "decoder_layers", "num_decoder_layers"),
)
# Fields with one value per block.
_VALUES = (
    *("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "layer_rope_theta", "indexer_types"),
    *("num_attention_heads_per_layer", "num_key_value_heads_per_layer", "attention_layers"),
    *("intermediate_size", "activation_sparsity_pattern"),
)
# Fields that count blocks of a kind that come first.
_FIRST = ("first_k_dense_replace", "num_dense_layers", "n_dense_layers", "moe_layer_start_index")
# Fields that list block numbers, possibly all of them.
_NUMBERS = ("mlp_only_layers", "moe_layers", "full_attn_idxs", "hybrid_layer_ids", "cross_attention_layers")
# A mapping from block number to fields.
_BY_NUMBER = "per_layer_config"
# Lists and mappings that do not describe blocks, whatever their length.
_ELSEWHERE = ("architectures", "id2label", "label2id")
_TOKENS = ("token_id", "token_ids", "_tokens")


def keep_layers(config: Any, kept: Sequence[int], count: int) -> None:
    """Cut the configuration of a model of ``count`` blocks, in place, to the blocks ``kept`` and renumber them.

    Raises ValueError, before anything is changed, for a field that may or may not be about the blocks, and where the
    configuration says by position what a block is, so that it cannot say it of the blocks that are left.
    """
    cut = copy.deepcopy(config)
    _cut(cut, kept, count)
    left = _by_position(cut, len(kept))
    for name, value in _by_position(config, count).items():
        if left.get(name) != (expected := [value[layer] for layer in kept]):
            raise ValueError(
                f"a {config.model_type} configuration says by position what a block is ({name}), and cannot say "
                f"{expected}: drop sublayers instead of blocks, or other blocks"
            )
    _cut(config, kept, count)


def _by_position(config: Any, count: int) -> dict[str, list[Any]]:
    """Return the lists with an entry for each block that a configuration computes from other fields."""
    found = {}
    for name in dir(type(config)):
        if not name.startswith("_") and isinstance(getattr(type(config), name, None), property):
            with suppress(Exception):
                value = getattr(config, name)
                if _is_list(value) and len(value) == count:
                    found[name] = list(value)
    return found


def _cut(config: Any, kept: Sequence[int], count: int) -> None:
    default = _default(config)
    if unknown := next(
        (name for name, value in vars(config).items() if _may_be_by_layer(name, value, count, default)), None
    ):
        raise ValueError(
            f"the model's configuration has {count} blocks and {count} entries in {unknown}, and it is unclear whether "
            f"these are per block: remove {unknown} from config.json if the model does not need it, or drop sublayers "
            "instead of blocks"
        )
    by_number = config.to_dict().get(_BY_NUMBER)
    if hasattr(config, "mlp_only_layers"):
        # Mixtures of experts also say by position which blocks have no experts.
        step = getattr(config, "decoder_sparse_step", 1)
        config.mlp_only_layers = [at for at in range(count) if at in config.mlp_only_layers or (at + 1) % step]
        config.decoder_sparse_step = 1
    for name, value in list(vars(config).items()):
        if name in _VALUES and _is_list(value) and len(value) == count:
            setattr(config, name, [value[layer] for layer in kept])
        elif name in _NUMBERS and _is_list(value):
            setattr(config, name, [kept.index(layer) for layer in value if layer in kept])
    for name in _FIRST:
        if isinstance(first := vars(config).get(name), int):
            setattr(config, name, sum(layer < first for layer in kept))
    for name in _DEPTHS:
        if getattr(config, name, None) == count:
            # Some types say there how many blocks an encoder has, which cannot be set.
            with suppress(NotImplementedError):
                setattr(config, name, len(kept))
    if isinstance(getattr(config, "scale_depth", None), int | float):
        # MiniCPM divides it by the square root of the number of blocks, which must not change what is left.
        config.scale_depth *= math.sqrt(len(kept) / count)
    if hasattr(config, "attention_types"):
        # GPT-Neo reads its list of blocks from pairs of kinds and how often these are repeated.
        config.attention_types = [[[kind], 1] for kind in config.attention_layers]
    if by_number:
        mine = {int(layer): fields for layer, fields in by_number.items()}
        config.per_layer_config = {at: mine[layer] for at, layer in enumerate(kept) if layer in mine} or None


def _default(config: Any) -> Any:
    """Return the default configuration of the same type, or None if there is none."""
    try:
        return type(config)()
    except Exception:
        return None


def _depth(config: Any) -> int | None:
    return next((found for name in _DEPTHS if isinstance(found := getattr(config, name, None), int)), None)


def _may_be_by_layer(name: str, value: Any, count: int, default: Any) -> bool:
    """Return whether an unknown field has the form of a per-block field."""
    if name.startswith("_") or name in (*_VALUES, *_NUMBERS, _BY_NUMBER, *_ELSEWHERE) or name.endswith(_TOKENS):
        return False
    usual = vars(default).get(name) if default is not None else None
    if isinstance(usual, list | tuple) and len(usual) != _depth(default):
        # The type itself has as many entries whatever the number of blocks.
        return False
    if isinstance(value, Mapping):
        return bool(value) and all(str(key).isdecimal() and int(key) < count for key in value)
    return _is_list(value) and len(value) == count


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)
