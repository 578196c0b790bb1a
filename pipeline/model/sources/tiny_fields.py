"""Small values for the fields of a configuration, by rules on their names and on what they are by default."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

POSITIONS = 512
DEPTH = re.compile(
    r"^(num_(hidden_|encoder_|decoder_)?layers|(en|de)coder_layers|n_layers?|num_blocks|num_layers_per_stack)$"
)
_WIDTH = ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_dim")
_HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads", "decoder_attention_heads")
_WINDOW, _CHUNK, _SELECTED = 8, 8, 8
_EXPERTS = 4

# Values that no rule on names can know.
_HINTS: dict[str, Any] = {
    # XLNet and BigBird look at all tokens by default; with these the same classes are causal.
    "attn_type": "uni",
    "attention_type": "original_full",
    # The product of both numbers is the longest sequence, the sum of the widths is the hidden size.
    "axial_pos_shape": [8, POSITIONS // 8],
}


@dataclass(frozen=True)
class Scale:
    """How much smaller the tiny configuration is than ``default``; ``draw`` gives the numbers of one field."""

    default: PretrainedConfig
    hidden: int
    heads: int
    vocabulary: int
    layers: int
    seed: str

    @property
    def width(self) -> float:
        """Tiny over default hidden size."""
        return self.hidden / (_first(self.default, _WIDTH) or 1024)

    @property
    def share(self) -> float:
        """Tiny over default number of heads."""
        return self.heads / (_first(self.default, _HEADS) or 16)

    def draw(self, field: str) -> random.Random:
        return random.Random(f"{self.seed} {field}")

    def has(self, pattern: str) -> bool:
        """Whether the type knows a field whose name matches and whose value is neither None nor zero."""
        return any(re.search(pattern, name) and value for name, value in vars(self.default).items())


def _first(config: PretrainedConfig, names: tuple[str, ...]) -> int | None:
    """Return the first of the fields that the configuration has, under its name or the standard one."""
    for name in names:
        value = vars(config).get(config.attribute_map.get(name, name))
        if isinstance(value, int):
            return value
    return None


def _multiple(value: float, of: int = 4) -> int:
    return max(of, of * round(value / of))


def _power(value: float) -> int:
    return max(2, 2 ** round(math.log2(value)))


def _inner(value: int, scale: Scale) -> int:
    return _multiple(value * scale.width, 4)


def _many_heads(value: int, scale: Scale) -> int:
    return 1 if value == 1 else _power(value * scale.share)


def _shared_heads(value: int, scale: Scale) -> int:
    """Let two query heads share a key and value, except where latent attention gives each head its own."""
    if value == _first(scale.default, _HEADS):
        return scale.heads if scale.has("kv_lora_rank") else max(1, scale.heads // 2)
    return 1 if value == 1 else max(1, scale.heads // 2)


def _head_size(value: int, scale: Scale) -> int:
    return _multiple(value * scale.width / scale.share)


def _experts(value: int, scale: Scale) -> int:
    """Return four, or two groups of four where the router first chooses groups."""
    return 2 * _EXPERTS if scale.has("^(n|num)_(expert_)?groups?$") and scale.has("topk_group") else _EXPERTS


def _capped(limit: int) -> Callable[[int, Scale], int]:
    return lambda value, scale: min(value, limit)


# The first that matches counts. Integers up to 16 that match none stay as they are.
_INTEGERS: tuple[tuple[str, Callable[[int, Scale], int]], ...] = (
    (r"^pad_token_id$|start_token_id$", lambda value, scale: scale.vocabulary - 2),
    (r"token(_id|_index|_ids)$|^unk_index$|^mask_index$", lambda value, scale: scale.vocabulary - 1),
    (r"^(decoder_|unpadded_)?vocab_size(_per_layer_input)?$", lambda value, scale: scale.vocabulary),
    (DEPTH.pattern, lambda value, scale: scale.layers),
    (r"^first_k_dense|^num_dense_layers|layer_start_index$|^max_window_layers$", _capped(1)),
    (r"^num_kv_shared_layers$", lambda value, scale: scale.layers // 2 if value else 0),
    (r"position|^n_ctx$|max_seq_len|context_length|model_max_length|max_distance", lambda value, scale: POSITIONS),
    (r"window|local_attention|floor", _capped(_WINDOW)),
    (r"chunk_?(size|length)$|block_size$", _capped(_CHUNK)),
    (r"^index_topk$|^indexer_budget$|centroid.*top_k", _capped(_SELECTED)),
    (r"topk_blocks$", _capped(2)),
    (
        r"shared_experts?$|_per_tok(en)?$|^moe_(topk|k)$|top_k_experts$|zero_expert",
        lambda value, scale: 2 if value else 0,
    ),
    (r"topk_group$", _capped(1)),
    (r"^(n_group|num_expert_group|n_groups|o_groups)$", _capped(2)),
    (r"experts$", _experts),
    (r"mamba_n_heads|mamba_num_heads", lambda value, scale: scale.hidden // 4),
    (r"mamba_d_head|mamba_head_?dim$", lambda value, scale: 8),
    (r"mamba_d_ssm", lambda value, scale: 2 * scale.hidden),
    (r"mamba_heads$", _capped(2)),
    (r"(key_value|kv)_heads$", _shared_heads),
    (r"heads$|n_head$|query_groups$|heads_per", _many_heads),
    (r"head_?dim$|dim_head|d_head$|head_size$|kv_channels|^d_kv$", _head_size),
    (r"scalar$", lambda value, scale: 3 * scale.hidden // (2 * scale.heads)),
)

_MULTIPLIER = re.compile(
    r"multiplier|scal(e|ing|ar)s?(_|$)|soft_?cap|(alpha|beta)(_factor)?$|_limit$|clip|magnitude|scale_|sink_init|threshold"
)
_NO_MULTIPLIER = re.compile(
    r"rope|init|loss|dropout|noise|eps$|dim|bound|patching|time_step|rms_norm|_in_fp32|^hc_mult"
)
_CAP = re.compile(r"soft_?cap|_limit$|clip")


def _multiplier(field: str, value: Any, scale: Scale, whole: bool) -> Any:
    """Draw a number that changes what the model computes and keeps it finite."""
    draw = scale.draw(field)
    if isinstance(value, list | tuple):
        return [draw.uniform(1.2, 1.9) for _ in value]
    if _CAP.search(field):
        return draw.uniform(3.0, 6.0)
    if whole:
        return draw.choice([2, 3])
    if value in (None, 0, 1):
        return draw.uniform(1.2, 1.9)
    return value * draw.choice([draw.uniform(0.75, 0.9), draw.uniform(1.1, 1.25)])


def small(field: str, value: Any, scale: Scale, whole: bool = False) -> Any:
    """Return the tiny value of a field that is ``value`` by default; ``whole`` where only an integer is allowed."""
    if field in _HINTS:
        return _HINTS[field]
    if isinstance(value, bool):
        return True if field in ("is_decoder", "causal") else value
    if "dropout" in field or "drop" in field.split("_")[-1] or field.endswith("pdrop"):
        return 0.0 if isinstance(value, int | float) else value
    if _MULTIPLIER.search(field) and not _NO_MULTIPLIER.search(field) and (value is None or _numbers(value)):
        if not any(re.search(pattern, field) for pattern, _ in _INTEGERS) or isinstance(value, float):
            return _multiplier(field, value, scale, whole)
    if isinstance(value, dict):
        return {key: small(str(key), item, scale, isinstance(item, int)) for key, item in value.items()}
    if isinstance(value, list | tuple) and _numbers(value) and value and not isinstance(value[0], bool | float):
        return [small(field, item, scale, True) for item in value]
    return _integer(field, value, scale) if isinstance(value, int) else value


def _numbers(value: Any) -> bool:
    items = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)


def _integer(field: str, value: int, scale: Scale) -> int:
    for pattern, rule in _INTEGERS:
        if re.search(pattern, field):
            return rule(value, scale)
    return _inner(value, scale) if value > 16 else value
