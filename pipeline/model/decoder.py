"""Model architectures: where the blocks, sublayers, norms and linear layers of a model are.

To add an architecture, add an entry to ``ARCHITECTURES``. Everything else works on the views defined here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pipeline.model.layer_config import keep_layers

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
# Linear layers that choose experts. They are left alone: pruning them would move tokens to other experts.
_ROUTERS = ("gate", "router", "shared_expert_gate")


def architecture_of(config: object) -> Architecture:
    """Return the architecture of a model configuration.

    Raises ValueError for an architecture that is not in ``ARCHITECTURES``, saying what an entry needs, and for variants
    of a known one that put the norms or the output elsewhere.
    """
    kind = getattr(config, "model_type", None)
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"model type {kind!r} is not supported; supported are {', '.join(sorted(ARCHITECTURES))}. An entry in "
            "ARCHITECTURES of pipeline/model/decoder.py has to name its block list, its final norm, and for attention "
            "and MLP the modules of a block that compute them, the norms around them and their output projection"
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


@dataclass(frozen=True)
class Sublayer:
    """One attention or MLP sublayer of one block."""

    layer: int
    kind: str
    block: nn.Module
    part: Part

    @property
    def entry(self) -> nn.Module:
        """Module whose first input is the residual stream before the sublayer."""
        return self.block.get_submodule(self.part.entry)

    @property
    def exit(self) -> nn.Module:
        """Module whose output (the first of several) is the update added to the residual stream."""
        return self.block.get_submodule(self.part.exit)


@dataclass(frozen=True)
class Linear:
    """A weight matrix of a block: of a linear layer, of a transposed one (Conv1D), or of one expert.

    ``parameter`` is the name of the parameter that holds it, ``name`` distinguishes the experts of one parameter.
    """

    name: str
    parameter: str
    module: nn.Module
    attribute: str
    transposed: bool = False
    expert: int | None = None

    def view(self, full: torch.Tensor) -> torch.Tensor:
        """Return the (out, in) view of this matrix in any tensor of the parameter's shape."""
        part = full if self.expert is None else full[self.expert]
        return part.T if self.transposed else part

    @property
    def weight(self) -> torch.Tensor:
        """Matrix (out, in) that shares the parameter's memory."""
        return self.view(getattr(self.module, self.attribute).data)


class Decoder:
    """A stateless view of a Hugging Face model as blocks and sublayers.

    Raises ValueError for an architecture that is not supported.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.architecture = architecture_of(model.config)

    @property
    def base(self) -> nn.Module:
        return self.model.get_submodule(self.architecture.base)

    @property
    def blocks(self) -> nn.ModuleList:
        blocks = self.base.get_submodule(self.architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @blocks.setter
    def blocks(self, blocks: nn.ModuleList) -> None:
        # Only for ``keep_blocks``, which updates the configuration as well.
        parent, _, name = self.architecture.blocks.rpartition(".")
        setattr(self.base.get_submodule(parent), name, blocks)

    @property
    def blocks_name(self) -> str:
        """Name of the block list in the model, e.g. ``model.layers``."""
        return ".".join(filter(None, (self.architecture.base, self.architecture.blocks)))

    @property
    def final_norm(self) -> nn.Module | None:
        return self.base.get_submodule(self.architecture.final_norm) if self.architecture.final_norm else None

    @property
    def head(self) -> nn.Linear:
        """Output projection from hidden states (D) to logits (V). Raises ValueError for an encoder."""
        head = None if self.architecture.encoder else self.model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise ValueError(f"a {self.model.config.model_type} model has no output projection, so no logits")
        return head

    @property
    def logit_cap(self) -> float | None:
        """Cap of families that squash their logits to ``cap·tanh(z / cap)``, or None."""
        return getattr(self.model.config, "final_logit_softcapping", None)

    @property
    def positions(self) -> int | None:
        """Number of positions that a sequence may have, learned or promised by the configuration, or None."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Device for token ids: where the embedding is computed, also if its weights are offloaded."""
        embedding = self.model.get_input_embeddings()
        device = embedding.weight.device
        return device if device.type != "meta" else torch.device(embedding._hf_hook.execution_device)

    def keep_blocks(self, kept: list[int]) -> None:
        """Keep only these blocks, in the model and in the per-block fields of its configuration."""
        keep_layers(self.model.config, kept)
        self.blocks = nn.ModuleList([self.blocks[layer] for layer in kept])

    def part(self, kind: str) -> Part:
        return self.architecture.attention if kind == ATTENTION else self.architecture.mlp

    def sublayer(self, layer: int, kind: str) -> Sublayer:
        return Sublayer(layer, kind, self.blocks[layer], self.part(kind))

    def sublayers(self) -> list[Sublayer]:
        """Return all sublayers in the order in which they are computed."""
        return [self.sublayer(layer, kind) for layer in range(len(self.blocks)) for kind in SUBLAYERS]

    def linears(self, layer: int) -> list[Linear]:
        """Return the weight matrices of a block without routers, e.g. ``model.layers.0.mlp.up_proj.weight``."""
        found = []
        for path, module in self.blocks[layer].named_modules():
            if path.rpartition(".")[2] in _ROUTERS:
                continue
            prefix = f"{self.blocks_name}.{layer}.{path}"
            if isinstance(module, nn.Linear | Conv1D):
                name = f"{prefix}.weight"
                found.append(Linear(name, name, module, "weight", transposed=isinstance(module, Conv1D)))
            for attribute, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 3:
                    name = f"{prefix}.{attribute}"
                    found += [Linear(f"{name}.{e}", name, module, attribute, expert=e) for e in range(len(parameter))]
        return found

    def outputs(self, layer: int, kind: str) -> list[Linear]:
        """Return the matrices of a sublayer that write its update."""
        names = [f"{self.blocks_name}.{layer}.{name}" for name in self.part(kind).outputs]
        return [w for w in self.linears(layer) if w.parameter.removesuffix(".weight") in names]

    def belongs(self, parameter: str, layer: int, kind: str) -> bool:
        """Return whether a parameter belongs to a sublayer."""
        prefix = f"{self.blocks_name}.{layer}."
        return any(parameter.startswith(f"{prefix}{module}.") for module in self.part(kind).modules)
