"""Views of a model: its blocks, sublayers, norms, weight matrices and output projection, whatever its architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.model.discovery import structure_of
from pipeline.model.head_input import HeadInput, Times
from pipeline.model.layer_config import keep_layers
from pipeline.model.nested import first
from pipeline.model.packed_layers import keep_packed
from pipeline.model.position_table import positions_of
from pipeline.model.side_by_side import runner_of
from pipeline.model.structure import Part, Structure, Write, keep

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Modules that choose experts. Their matrices are left alone: pruning them would move tokens to other experts.
_ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Sublayer:
    """One attention, mixer or MLP sublayer of one block."""

    layer: int
    kind: str
    block: nn.Module
    part: Part

    @property
    def entry(self) -> nn.Module:
        """Module whose first input is the residual stream before the sublayer."""
        return self.block.get_submodule(self.part.entry)

    @property
    def exits(self) -> list[nn.Module]:
        """Modules whose outputs (the first of several), times their scale, are the update added to the stream."""
        return [self.block.get_submodule(write.module) for write in self.part.writes]

    @contextmanager
    def watched(self, on_update: Callable[[torch.Tensor], None]) -> Iterator[None]:
        """Call ``on_update(f)`` with the update that is added to the stream, in each forward pass within the block."""
        found: list[torch.Tensor] = []

        def hook(number: int, write: Write) -> Callable[..., None]:
            def note(module: nn.Module, args: object, output: Any) -> None:
                if not number:
                    # Left over from a pass that ended before the last of them.
                    found.clear()
                update = first(output)
                if write.beside and output[write.beside] is not None:
                    update = update + output[write.beside]
                found.append(update if write.scale == 1 else update * write.scale)
                if len(found) == len(self.part.writes):
                    total = found[0] if len(found) == 1 else torch.stack(found).sum(0)
                    found.clear()
                    on_update(total)

            return note

        with ExitStack() as stack:
            for number, (module, write) in enumerate(zip(self.exits, self.part.writes, strict=True)):
                stack.callback(module.register_forward_hook(hook(number, write)).remove)
            yield


@dataclass(frozen=True)
class Linear:
    """A weight matrix of a block: of a linear layer, of a transposed one (Conv1D), or of one expert.

    ``parameter`` is the name of the parameter that holds it, ``name`` distinguishes the experts of one parameter.
    ``form`` is the shape in which the parameter holds them, empty if it is its own.
    """

    name: str
    parameter: str
    module: nn.Module
    attribute: str
    transposed: bool = False
    expert: int | None = None
    form: tuple[int, ...] = ()

    def view(self, full: torch.Tensor) -> torch.Tensor:
        """Return the (out, in) view of this matrix in any tensor of the parameter's shape."""
        part = full.view(self.form) if self.form else full
        part = part if self.expert is None else part[self.expert]
        return part.T if self.transposed else part

    @property
    def weight(self) -> torch.Tensor:
        """Matrix (out, in) that shares the parameter's memory."""
        return self.view(getattr(self.module, self.attribute).data)


class Decoder:
    """A view of a Hugging Face model as blocks and sublayers, found on the model itself at first use.

    Raises ValueError for a model that does not add sublayers to a residual stream.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @property
    def structure(self) -> Structure:
        """What was found on the model, at the first use."""
        return structure_of(self.model)

    @property
    def base(self) -> nn.Module:
        return self.model.get_submodule(self.structure.base)

    @property
    def holder(self) -> nn.Module:
        """Module that holds the block list and runs it; the base itself, or one inside it (OPT)."""
        return self.model.get_submodule(self.blocks_name.rpartition(".")[0])

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks that text passes, in order."""
        listed = self.block_list
        return nn.ModuleList([listed[place] for place in self.structure.places]) if self.structure.idle else listed

    @property
    def block_list(self) -> nn.ModuleList:
        """The list that holds the blocks, also those that text does not pass."""
        if self.structure.steps:
            return runner_of(self.model, self.structure).blocks
        listed = self.model.get_submodule(self.structure.blocks_name)
        assert isinstance(listed, nn.ModuleList)
        return listed

    @property
    def blocks_name(self) -> str:
        """Name of the block list in the model, e.g. ``model.layers``."""
        return self.structure.blocks_name

    @property
    def final_norm(self) -> nn.Module | None:
        """Map from the last block's output to the final state, from which the logits are linear; None for identity."""
        tail = [self.model.get_submodule(name) for name in self.structure.tail]
        if (factor := self.structure.blocks[-1].passed) != 1:
            tail.insert(0, Times(factor))
        if self.structure.head_wrapper:
            tail.append(HeadInput(self.model.get_submodule(self.structure.head_wrapper), self.head))
        return nn.Sequential(*tail) if len(tail) > 1 else next(iter(tail), None)

    def by_token(self, x: torch.Tensor) -> torch.Tensor:
        """Return a state or an update of a block as (B, T, D), of several streams the one that gives the logits."""
        streams, stream = self.structure.streams, self.structure.stream
        return x if streams == 1 else x.unflatten(1, (streams, -1))[:, stream]

    def final_states(self, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return the final states (B, T, D) of token ids (B, T), without a cache."""
        if self.structure.streams > 1:
            return self._final_states_of_stream(ids, **options)
        states = self.base(ids.to(self.device), use_cache=False, **options).last_hidden_state
        for name in self.structure.after_base:
            states = self.model.get_submodule(name)(states)
        if self.structure.head_wrapper:
            states = HeadInput(self.model.get_submodule(self.structure.head_wrapper), self.head)(states)
        return states

    def _final_states_of_stream(self, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return the final states where the base may return those of another stream."""
        last: list[torch.Tensor] = []
        hook = self.blocks[-1].register_forward_hook(lambda module, args, output: last.append(first(output)))
        try:
            self.base(ids.to(self.device), use_cache=False, **options)
        finally:
            hook.remove()
        norm, x = self.final_norm, self.by_token(last[0])
        return x if norm is None else norm(x)

    @property
    def head(self) -> nn.Linear:
        """Output projection from hidden states (D) to logits (V). Raises ValueError for an encoder."""
        head = None if self.structure.encoder else self.model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise ValueError(
                f"a {self.model.config.model_type} model has no output projection, so it computes no logits"
            )
        return head

    @property
    def uses_cache(self) -> bool:
        """Whether it generates with a cache of earlier tokens."""
        return bool(getattr(self.model.config, "use_cache", False))

    @property
    def positions(self) -> int | None:
        """Number of tokens that a sequence may have, by learned positions or by the configuration, or None."""
        return positions_of(self.model)

    @property
    def device(self) -> torch.device:
        """Device for token ids: where the embedding is computed, also if its weights are offloaded; or ``meta``."""
        embedding = self.model.get_input_embeddings()
        own, hook = embedding.weight.device, getattr(embedding, "_hf_hook", None)
        return own if own.type != "meta" or hook is None else torch.device(hook.execution_device)

    def keep_blocks(self, kept: list[int]) -> None:
        """Keep only these blocks, in the model and in the per-block fields of its configuration."""
        structure, listed = self.structure, self.block_list
        left = structure.left(kept)
        config = self.model.config.get_text_config(decoder=True)
        before = dict(vars(config))
        keep_layers(config, left, len(listed))
        for name, value in before.items():
            if (changed := vars(config)[name]) is value or changed == value:
                continue
            # Some models read a list from their configuration once, when they are built, or how many blocks to run.
            for module in self.model.modules() if isinstance(value, list) else [self.holder]:
                if module.__dict__.get(name) == value:
                    setattr(module, name, changed)
        keep_packed(self.model, self.blocks_name, left, len(listed))
        if structure.steps:
            runner_of(self.model, structure).keep(left)
        else:
            holder, name = self.holder, self.blocks_name.rpartition(".")[2]
            setattr(holder, name, nn.ModuleList([listed[place] for place in left]))
        self.model.residual_structure = keep(structure, kept)

    def passed_on(self, layer: int, output: Any) -> torch.Tensor:
        """Return what the next block is given of what a block returns."""
        x, factor = first(output), self.structure.blocks[layer].passed
        return x if factor == 1 else x * factor

    def part(self, layer: int, kind: str) -> Part:
        """Return the sublayer of a kind in a block. Raises ValueError if the block has none."""
        found = self.structure.blocks[layer].part(kind)
        if found is None:
            raise ValueError(f"block {layer} has no {kind} sublayer")
        return found

    def has(self, layer: int, kind: str) -> bool:
        """Return whether a block has a sublayer of a kind."""
        return self.structure.blocks[layer].part(kind) is not None

    def sublayer(self, layer: int, kind: str) -> Sublayer:
        return Sublayer(layer, kind, self.blocks[layer], self.part(layer, kind))

    def sublayers(self) -> list[Sublayer]:
        """Return all sublayers in the order in which they are computed."""
        blocks = self.blocks
        return [
            Sublayer(layer, part.kind, blocks[layer], part)
            for layer, block in enumerate(self.structure.blocks)
            for part in block.parts
        ]

    def linears(self, layer: int) -> list[Linear]:
        """Return the weight matrices of a block, e.g. ``model.layers.0.mlp.up_proj.weight``.

        Those of routers are left out, and those that no text passes.
        """
        # Deferred: a job that finds its results loads no model.
        from transformers.pytorch_utils import Conv1D

        found, stored = [], dict(self.structure.blocks[layer].matrices)
        forms = dict(self.structure.blocks[layer].forms)
        for path, module in self.blocks[layer].named_modules():
            if not _ROUTERS.isdisjoint(path.split(".")) or isinstance(module, _CONVOLUTIONS):
                continue
            if f"{path}.".startswith(tuple(f"{idle}." for idle in self.structure.blocks[layer].idle)):
                continue
            for attribute, parameter in module.named_parameters(recurse=False):
                own = f"{path}.{attribute}" if path else attribute
                plain = isinstance(module, nn.Linear | Conv1D) and attribute == "weight"
                if not plain and own not in stored:
                    continue
                name = self.structure.name_of(layer, own)
                turned = isinstance(module, Conv1D) if plain else stored.get(own, False)
                form = () if plain else forms.get(own, ())
                shape = form or parameter.shape
                if len(shape) == 2:
                    found.append(Linear(name, name, module, attribute, turned, None, form))
                elif len(shape) == 3:
                    experts = range(shape[0])
                    found += [Linear(f"{name}.{e}", name, module, attribute, turned, e, form) for e in experts]
        return found

    def ends(self, layer: int) -> list[Linear]:
        """Return the matrices of a block whose products nothing else in it reads."""
        names = [self.structure.name_of(layer, name) for name in self.structure.blocks[layer].ends]
        return [linear for linear in self.linears(layer) if linear.parameter in names]

    def belongs(self, parameter: str, layer: int, kind: str) -> bool:
        """Return whether a parameter belongs to a sublayer."""
        modules = (self.structure.name_of(layer, module) for module in self.part(layer, kind).modules)
        return any(parameter.startswith(f"{module}.") for module in modules)
