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
_EXPERTS = 4


@dataclass(frozen=True)
class Scale:
    """How much smaller the tiny configuration is than ``default``; ``draw`` gives the numbers of one field.

    The model is causal, or an ``encoder`` that reads both ways.
    """

    default: PretrainedConfig
    reference: int
    hidden: int
    heads: int
    vocabulary: int
    layers: int
    seed: str
    encoder: bool = False

    @property
    def width(self) -> float:
        """Tiny over default hidden size, the same for all parts of a configuration, so that they fit together."""
        return self.hidden / self.reference

    @property
    def share(self) -> float:
        """Tiny over default number of heads."""
        return self.heads / (_first(self.default, _HEADS) or 16)

    def draw(self, field: str) -> random.Random:
        return random.Random(f"{self.seed} {field}")

    def has(self, pattern: str) -> bool:
        """Whether the type knows a field whose name matches and whose value is neither None nor zero."""
        return any(re.search(pattern, name) and value for name, value in vars(self.default).items())


def width(config: PretrainedConfig) -> int:
    """Return the hidden size of a configuration: its own, its text part's or the largest of its parts'; 0 if none."""
    own = _first(config, _WIDTH) or _first(config.get_text_config(decoder=True), _WIDTH)
    return own or max((width(part) for part in vars(config).values() if isinstance(part, PretrainedConfig)), default=0)


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


def _positions(value: int, scale: Scale) -> int:
    """Return the number of positions; of encoders with those up to the padding token, which many do not use."""
    return POSITIONS + scale.vocabulary if scale.encoder else POSITIONS


def _at_most(limit: int) -> Callable[[int, Scale], int]:
    return lambda value, scale: min(value, limit)


# The first that matches counts. Integers up to 16 that match none stay as they are.
_INTEGERS: tuple[tuple[str, Callable[[int, Scale], int]], ...] = (
    (r"^pad_token_id$|start_token_id$", lambda value, scale: scale.vocabulary - 2),
    (r"token(_id|_index|_ids)$|^unk_index$|^mask_index$", lambda value, scale: scale.vocabulary - 1),
    (r"vocab_size(_per_layer_input)?$", lambda value, scale: scale.vocabulary if value > 16 else value),
    (r"byte_group_vocab$|ngram_vocab_size_base$", _at_most(64)),
    (DEPTH.pattern, lambda value, scale: scale.layers),
    (r"^first_k_dense|^num_dense_layers|layer_start_index$|^max_window_layers$", _at_most(1)),
    (r"^n_layers_per_|^attn_layer_offset$", _at_most(2)),
    (r"^num_kv_shared_layers$", lambda value, scale: scale.layers // 2 if value else 0),
    (r"position|^n_ctx$|max_seq_len|context_length|model_max_length|max_distance", _positions),
    (r"window|local_attention|floor", _at_most(8)),
    (r"^(hidden_size|d_model|n_embd)$", lambda value, scale: _multiple(value * scale.width, 2 * scale.heads)),
    (r"chunk_?(size|length)$|block_size$", _at_most(8)),
    (r"^index_topk$|centroid.*top_k", _at_most(4)),
    (r"compress|^indexer_budget$", _at_most(8)),
    (r"topk_blocks$", _at_most(2)),
    (r"codebooks$|quantizers$|^relative_attention_num_buckets$", lambda value, scale: value),
    (r"shared_experts?$|_per_tok(en)?$|zero_expert", _at_most(2)),
    (r"^moe_(topk|top_k|k)$|top_k_experts$", lambda value, scale: 2),
    (r"topk_group$", _at_most(1)),
    (r"^(n_group|num_expert_group|n_groups|o_groups)$", _at_most(2)),
    (r"experts$", _experts),
    (r"mamba_n_heads|mamba_num_heads", lambda value, scale: scale.hidden // 4),
    (r"mamba_d_head|mamba_head_?dim$", lambda value, scale: 8),
    (r"mamba_d_ssm", lambda value, scale: 2 * scale.hidden),
    (r"mamba_heads$", _at_most(2)),
    # With fewer, many scores of tokens are exactly zero, and the number of tokens decides which of these are chosen.
    (r"^index_n_heads$", _at_most(8)),
    (r"(key_value|kv)_heads$", _shared_heads),
    (r"heads$|n_head$|query_groups$|heads_per", _many_heads),
    (r"head_?dim$|dim_head|d_head$|head_size$|kv_channels|^d_kv$", _head_size),
    (r"scalar$", lambda value, scale: 3 * scale.hidden // (2 * scale.heads)),
)

# What a size is where the default is None and the class does not derive it.
_MISSING: tuple[tuple[str, Callable[[Scale], int | None]], ...] = (
    (r"^num_key_value_heads$", lambda scale: max(1, scale.heads // 2)),
    (r"^head_dim$", lambda scale: scale.hidden // scale.heads),
    (r"^indexer_head_dim$", lambda scale: 2 * scale.hidden // scale.heads),
    (r"_n_floor$", lambda scale: 8),
    (r"^indexer_n_heads$", lambda scale: 2),
    (r"^indexer_kv_heads$", lambda scale: 1),
    (r"^indexer_budget$", lambda scale: 8),
    (r"^indexer_compress_ratio$", lambda scale: 4),
    (r"^n_routed_experts$|^num_(local_)?experts$", lambda scale: 4 if scale.has("^moe_intermediate_size$") else None),
    (r"^num_experts_per_tok$", lambda scale: 2 if scale.has("^moe_intermediate_size$") else None),
    (r"^n_shared_experts$", lambda scale: 1 if scale.has("^moe_intermediate_size$") else None),
)

_MULTIPLIER = re.compile(
    r"multiplier|scal(e|ing|ar)s?(_|$)|scale_|soft_?cap|(alpha|beta)(_factor)?$|_limit$|clip|magnitude|sink_init"
)
_NO_MULTIPLIER = re.compile(
    r"rope|initializer|init_std|loss|drop|noise|eps$|dim|bound|patching|time_step|in_fp32|^scale_fmt|scale_factor|floor"
)
_CAP = re.compile(r"soft_?cap|_limit$|clip")


def _multiplier(field: str, value: Any, scale: Scale, whole: bool) -> Any:
    """Draw a number that changes what the model computes and keeps it finite."""
    draw = scale.draw(field)
    if isinstance(value, list | tuple):
        return [draw.uniform(1.2, 1.9) for _ in value]
    if _CAP.search(field):
        return draw.uniform(3.0, 6.0) if "cap" in field else draw.uniform(1.5, 3.0)
    return draw.choice([2, 3]) if whole else draw.uniform(*draw.choice([(0.55, 0.85), (1.2, 1.9)]))


def multiplies(field: str, value: Any) -> bool:
    """Whether a field scales or caps what the model computes."""
    if not _MULTIPLIER.search(field) or _NO_MULTIPLIER.search(field):
        return False
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    if not (value is None or isinstance(value, int | float)) or isinstance(value, bool):
        return False
    return not isinstance(value, int) or not any(re.search(name, field) for name, _ in _INTEGERS)


def small(field: str, value: Any, scale: Scale, whole: bool = False) -> Any:
    """Return the tiny value of a field that is ``value`` by default; ``whole`` where only an integer is allowed."""
    if isinstance(value, bool):
        return not scale.encoder if field in ("is_decoder", "causal") else value
    if isinstance(value, int | float) and re.search(r"dropout|drop$|pdrop|dropout_prob", field):
        return type(value)(0)
    if multiplies(field, value):
        return _multiplier(field, value, scale, whole)
    if value is None:
        return next((rule(scale) for name, rule in _MISSING if re.search(name, field)), None)
    if isinstance(value, dict):
        return {key: small(str(key), item, scale, isinstance(item, int)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(small(field, item, scale, True) if isinstance(item, int) else item for item in value)
    return _integer(field, value, scale) if isinstance(value, int) else value


def _integer(field: str, value: int, scale: Scale) -> int:
    for pattern, rule in _INTEGERS:
        if re.search(pattern, field):
            return rule(value, scale)
    return _inner(value, scale) if value > 16 else value
