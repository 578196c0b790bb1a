"""What the pipeline knows of model architectures: where the blocks, sublayers, norms and linear layers are.

Adding an architecture is one entry in ``ARCHITECTURES``. Everything else works on the views defined here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from transformers import PreTrainedModel

ATTENTION, MLP = "attention", "mlp"
SUBLAYERS = (ATTENTION, MLP)


@dataclass(frozen=True)
class Architecture:
    """Attribute names of a decoder whose blocks compute ``x + f(norm(x))``, attention first, then the MLP."""

    base: str = "model"
    blocks: str = "layers"
    final_norm: str = "norm"
    attention: str = "self_attn"
    attention_norm: str = "input_layernorm"
    mlp: str = "mlp"
    mlp_norm: str = "post_attention_layernorm"


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(),
    "mistral": Architecture(),
    "qwen2": Architecture(),
    "qwen3": Architecture(),
}


@dataclass(frozen=True)
class Sublayer:
    """One attention or MLP sublayer of one block. ``norm`` sees the residual stream before the sublayer."""

    layer: int
    kind: str
    block: nn.Module
    module_name: str
    norm_name: str

    @property
    def module(self) -> nn.Module:
        return self.block.get_submodule(self.module_name)

    @property
    def norm(self) -> nn.Module:
        return self.block.get_submodule(self.norm_name)


class Decoder:
    """A view of a Hugging Face causal language model as blocks and sublayers. Holds no state of its own.

    Raises ValueError for an architecture that is not in ``ARCHITECTURES``, saying what an entry needs.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        kind = model.config.model_type
        if kind not in ARCHITECTURES:
            raise ValueError(
                f"model type {kind!r} is not supported; supported are {', '.join(sorted(ARCHITECTURES))}. An entry in "
                "ARCHITECTURES of pipeline/decoder.py has to name its block list, final norm, and the attention, MLP "
                "and norm attributes of a block"
            )
        self.model = model
        self.architecture = ARCHITECTURES[kind]

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
        setattr(self.base, self.architecture.blocks, blocks)

    @property
    def final_norm(self) -> nn.Module:
        return self.base.get_submodule(self.architecture.final_norm)

    @property
    def head(self) -> nn.Linear:
        """The output projection from hidden states (D) to logits (V)."""
        head = self.model.get_output_embeddings()
        assert isinstance(head, nn.Linear)
        return head

    @property
    def device(self) -> torch.device:
        return self.model.device

    def sublayer(self, layer: int, kind: str) -> Sublayer:
        names = self.architecture
        module, norm = (names.attention, names.attention_norm) if kind == ATTENTION else (names.mlp, names.mlp_norm)
        return Sublayer(layer, kind, self.blocks[layer], module, norm)

    def sublayers(self) -> list[Sublayer]:
        """All sublayers in the order in which they are computed."""
        return [self.sublayer(layer, kind) for layer in range(len(self.blocks)) for kind in SUBLAYERS]

    @cached_property
    def blocks_name(self) -> str:
        return f"{self.architecture.base}.{self.architecture.blocks}"

    def linears(self, layer: int) -> dict[str, nn.Linear]:
        """The linear layers of a block by their name in the model, e.g. ``model.layers.0.mlp.up_proj``."""
        prefix = f"{self.blocks_name}.{layer}"
        return {
            f"{prefix}.{name}": module
            for name, module in self.blocks[layer].named_modules()
            if isinstance(module, nn.Linear)
        }
