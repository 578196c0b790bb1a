"""Model architectures: names of the blocks, sublayers and norms of each model type. Imports no model library.

To add an architecture, add an entry to ``ARCHITECTURES``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

ATTENTION, MLP = "attention", "mlp"
SUBLAYERS = (ATTENTION, MLP)
BLOCK = "block"


@dataclass(frozen=True)
class Part:
    """Location of one kind of sublayer inside a block, as names relative to the block.

    ``modules`` compute f in this order. ``norm`` is the norm before them that reads the residual stream (empty: the
    first module reads it). ``post_norm`` is a norm between f and the addition. ``outputs`` are the last linear layers
    or expert weights of f: zeroing the ones that a block has makes its update zero.
    """

    modules: tuple[str, ...]
    outputs: tuple[str, ...]
    norm: str = ""
    post_norm: str = ""

    @property
    def entry(self) -> str:
        """Name of the module whose first input is the residual stream before the sublayer."""
        return self.norm or self.modules[0]

    @property
    def exit(self) -> str:
        """Name of the module whose output is added to the residual stream."""
        return self.post_norm or self.modules[-1]


@dataclass(frozen=True)
class Architecture:
    """A transformer whose blocks add an attention and an MLP sublayer to the residual stream.

    In ``parallel`` blocks both sublayers read the same stream. With ``norm_on_stream`` the sum itself is normalised
    (BERT), and the next sublayer does not read what this one wrote. An ``encoder`` has no output projection.
    """

    base: str = "model"
    blocks: str = "layers"
    final_norm: str = "norm"
    attention: Part = Part(("self_attn",), ("self_attn.o_proj",), norm="input_layernorm")
    mlp: Part = Part(("mlp",), ("mlp.down_proj",), norm="post_attention_layernorm")
    parallel: bool = False
    norm_on_stream: bool = False
    encoder: bool = False

    @property
    def chained(self) -> bool:
        """Whether each sublayer reads exactly what the one before it wrote."""
        return not (self.parallel or self.norm_on_stream)


_LLAMA = Architecture()
_GEMMA = Architecture(
    attention=replace(_LLAMA.attention, post_norm="post_attention_layernorm"),
    mlp=replace(_LLAMA.mlp, norm="pre_feedforward_layernorm", post_norm="post_feedforward_layernorm"),
)
_EXPERTS = ("mlp.down_proj", "mlp.experts.down_proj", "mlp.shared_expert.down_proj")
_MOE = replace(_LLAMA, mlp=replace(_LLAMA.mlp, outputs=_EXPERTS))
ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "phi3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "mixtral": _MOE,
    "qwen2_moe": _MOE,
    "qwen3_moe": _MOE,
    "opt": Architecture(
        base="model.decoder",
        final_norm="final_layer_norm",
        attention=Part(("self_attn",), ("self_attn.out_proj",), norm="self_attn_layer_norm"),
        mlp=Part(("fc1", "fc2"), ("fc2",), norm="final_layer_norm"),
    ),
    "gpt2": Architecture(
        base="transformer",
        blocks="h",
        final_norm="ln_f",
        attention=Part(("attn",), ("attn.c_proj",), norm="ln_1"),
        mlp=Part(("mlp",), ("mlp.c_proj",), norm="ln_2"),
    ),
    "gpt_neox": Architecture(
        base="gpt_neox",
        final_norm="final_layer_norm",
        attention=Part(("attention",), ("attention.dense",), norm="input_layernorm"),
        mlp=Part(("mlp",), ("mlp.dense_4h_to_h",), norm="post_attention_layernorm"),
        parallel=True,
    ),
    "phi": Architecture(
        final_norm="final_layernorm",
        attention=Part(("self_attn",), ("self_attn.dense",), norm="input_layernorm"),
        mlp=Part(("mlp",), ("mlp.fc2",), norm="input_layernorm"),
        parallel=True,
    ),
    "bert": Architecture(
        base="",
        blocks="encoder.layer",
        final_norm="",
        attention=Part(("attention.self", "attention.output.dense"), ("attention.output.dense",)),
        mlp=Part(("intermediate", "output.dense"), ("output.dense",)),
        norm_on_stream=True,
        encoder=True,
    ),
}


def unsuited(kind: str, decoder_only: bool, only: Collection[str]) -> str | None:
    """Return why a pruner with these limits does not work on a model type, with the way out; None if it does.

    ``only`` are the model types that it works on; empty for all.
    """
    if only and kind not in only:
        return f"works on {', '.join(sorted(only))} only, not on {kind}; give another pruner or one of those models"
    if decoder_only and ARCHITECTURES[kind].encoder:
        return f"needs a model that predicts tokens, and {kind} is an encoder; give another pruner, such as wanda"
    return None


def architecture_of(config: object) -> Architecture:
    """Return the architecture of a model configuration.

    Raises ValueError for an architecture that is not in ``ARCHITECTURES``, saying what an entry needs, and for variants
    of a known one that put the norms or the output elsewhere.
    """
    kind = getattr(config, "model_type", None)
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"model type {kind!r} is not supported; supported are {', '.join(sorted(ARCHITECTURES))}. An entry in "
            "ARCHITECTURES of pipeline/model/architectures.py must name its block list, its final norm, and for "
            "attention and MLP the modules of a block that compute them, the norms around them and their output "
            "projection"
        )
    found = ARCHITECTURES[kind]
    if kind == "gpt_neox":
        return replace(found, parallel=bool(getattr(config, "use_parallel_residual", True)))
    projected = getattr(config, "word_embed_proj_dim", None) not in (None, getattr(config, "hidden_size", None))
    if kind == "opt" and (projected or not getattr(config, "do_layer_norm_before", True)):
        raise ValueError("this OPT variant (norms after the sublayers, projected embeddings) is not supported")
    if getattr(config, "is_decoder", False) and found.encoder:
        raise ValueError(f"a {kind} model used as a decoder is not supported; load it as an encoder")
    return found
