"""What lies between the last block and the output projection and is no module of the model, as a module of its own."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import nn


class Times(nn.Module):
    """Multiplies a state by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class HeadInput(nn.Module):
    """What a module around the output projection computes before it."""

    def __init__(self, wrapper: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        # Not registered as parts: the model owns them.
        self._call = wrapper.__call__
        self._projection = [projection]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []

        def reach(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            found.append(args[0])
            raise _Reached

        hook = self._projection[0].register_forward_pre_hook(reach)
        try:
            with suppress(_Reached):
                self._call(states)
        finally:
            hook.remove()
        return found[0]


class _Reached(Exception):
    """Ends the pass through a wrapper where the output projection begins."""
