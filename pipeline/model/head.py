"""The map from hidden states to logits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from pipeline.model.bfloat16 import exact_products, holds_bfloat16


@dataclass(frozen=True)
class Head:
    """The output projection, ``z = scale·W h``: ``weight`` is (V, D).

    Some families add a ``bias`` (V,) before scaling, or squash the logits to ``cap·tanh(z / cap)``.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    cap: float | None = None
    scale: float = 1.0

    def to(self, dtype: torch.dtype) -> Head:
        """Return the head in another dtype."""
        return Head(self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype), self.cap, self.scale)

    @property
    def vocabulary(self) -> int:
        return len(self.weight)

    @cached_property
    def _holds_bfloat16(self) -> bool:
        return holds_bfloat16(self.weight)

    def project(self, h: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits (N, V) of states (N, D), before any cap."""
        with exact_products(h.device, lambda: self._holds_bfloat16 and holds_bfloat16(h)):
            if self.bias is None:
                return self._scaled(torch.mm(h, self.weight.T, out=out))
            return self._scaled(torch.addmm(self.bias, h, self.weight.T, out=out))

    def logits(self, h: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits (N, V) of states (N, D), after the cap if there is one."""
        z = self.project(h, out)
        return z if self.cap is None else self._squash(z)

    def steepness(self, z: torch.Tensor) -> torch.Tensor:
        """Return the derivative of logits ``z`` (N, V), given after the cap, with respect to ``W h`` before it."""
        return (torch.ones_like(z) if self.cap is None else 1 - (z / self.cap).square()) * self.scale

    def change(self, delta_h: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the change of logits (N, V), before any cap, by a change of states (N, D); exactly zero for zero."""
        return self._scaled(torch.mm(delta_h, self.weight.T, out=out))

    def capped(self, z: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits and their change (N, V) after the cap, from both before it."""
        if self.cap is None:
            return z, delta
        before, after = self._squash(z), self._squash(z + delta)
        return before, after.sub_(before)

    def _scaled(self, z: torch.Tensor) -> torch.Tensor:
        return z if self.scale == 1 else z.mul_(self.scale)

    def _squash(self, z: torch.Tensor) -> torch.Tensor:
        assert self.cap is not None
        return (z / self.cap).tanh_().mul_(self.cap)
