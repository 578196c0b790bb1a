"""Stand-ins for the modules of dropped sublayers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.model.decoder import Decoder
from pipeline.model.short_pass import stream_of
from pipeline.model.structure import Stub

# A module of the dense model that another one stands in for: its parent, its name there, and itself.
Replaced = tuple[nn.Module, str, nn.Module]


class DroppedSublayer(nn.Module):
    """Stands in for a module of a dropped sublayer: no parameters, no compute, zeros in the form of its output.

    A state that it is given to hand on, it hands on as it is.
    """

    def __init__(self, stub: Stub) -> None:
        super().__init__()
        self.stub = stub

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        x = stream_of(args, kwargs)
        return self.stub.formed(x.new_zeros((*x.shape[:-1], self.stub.width)), args, kwargs)


class PassedNorm(nn.Module):
    """Stands in for a norm before a dropped sublayer: passes its input on. Some blocks ask for its weight's dtype."""

    weight: torch.Tensor

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        dtype = next((parameter.dtype for parameter in norm.parameters()), torch.float32)
        self.register_buffer("weight", torch.empty(0, dtype=dtype), persistent=False)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return x


class PassedBlock(nn.Module):
    """Stands in for a block where the others keep their numbers and masks: passes the residual stream on unchanged.

    Some models ask a block for its kind, so it has the block's attributes.
    """

    def __init__(self, block: nn.Module, several: int) -> None:
        super().__init__()
        # Not registered as a part: nothing of it runs.
        self.__dict__["block"] = block
        self.several = several

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return passed_on(hidden_states, self.several)


def passed_on(x: torch.Tensor, several: int) -> Any:
    """Return a state in the form in which a block does: alone, or the first of ``several``."""
    return (x, *[None] * (several - 1)) if several else x


def drop(decoder: Decoder, layer: int, kind: str) -> list[Replaced]:
    """Replace the modules of a sublayer; return parent, name and module of each, to put it back.

    A norm that another sublayer reads, too, stays.
    """
    block, part = decoder.blocks[layer], decoder.part(layer, kind)
    writing = {write.module for write in part.writes}
    replaced = []
    for path, stub in zip(part.modules, part.stubs, strict=True):
        # A norm on the way is passed by; what writes to the stream gives zeros.
        parent, _, name = path.rpartition(".")
        holder = block.get_submodule(parent)
        whole = holder.get_submodule(name)
        module = PassedNorm(whole) if path == part.norm and path not in writing else DroppedSublayer(stub)
        replaced.append((holder, name, whole))
        setattr(holder, name, module.train(holder.training))
    return replaced


def is_dropped(decoder: Decoder, layer: int, kind: str) -> bool:
    """Return whether a sublayer of a pruned model is one that was dropped."""
    written = decoder.part(layer, kind).writes[0].module
    return isinstance(decoder.blocks[layer].get_submodule(written), DroppedSublayer)
