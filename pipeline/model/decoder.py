"""Views of a model: its blocks, sublayers, norms, linear layers and output projection, whatever its architecture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pipeline.model.architectures import ATTENTION, SUBLAYERS, Part, architecture_of
from pipeline.model.layer_config import keep_layers

# Linear layers that choose experts. They are left alone: pruning them would move tokens to other experts.
_ROUTERS = ("gate", "router", "shared_expert_gate")


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
            raise ValueError(
                f"a {self.model.config.model_type} model has no output projection, so it computes no logits"
            )
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
