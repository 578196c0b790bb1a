"""Confidence of the dense model in its next token, and whether pruning changes that token."""

from __future__ import annotations

import torch


def top(z: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the argmax (N, 1) of dense logits (N, V), its gap to the second largest, and flips by a perturbation.

    The gap is in logits, (N,) float64. A flip, (N,) float64 of 0 and 1, is a position at which another token's
    perturbed logit is above that of the dense argmax: ties do not count.
    """
    first = z.argmax(-1, keepdim=True)
    largest = z.gather(-1, first)
    # Mask the largest entry for a moment: a second maximum costs far less than a sort.
    z.scatter_(-1, first, float("-inf"))
    second = z.amax(-1)
    z.scatter_(-1, first, largest)
    flip = (z + delta).amax(-1) > (largest + delta.gather(-1, first)).squeeze(-1)
    return first, (largest.squeeze(-1) - second).double(), flip.double()


def confidence(
    p: torch.Tensor, z: torch.Tensor, first: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the largest probability and the entropy in nats of softmax(z/T); both (N,) float64.

    ``p`` are the probabilities (N, V) up to a factor, ``first`` (N, 1) is the argmax of ``z``. The entropy is
    ``E_p[max z - z]/T - log max p``.
    """
    mass = p.sum(-1).double()
    largest = p.gather(-1, first).squeeze(-1).double() / mass
    expected = torch.linalg.vecdot(p, z).double()
    if not (safe := expected.isfinite()).all():
        expected[~safe] = torch.linalg.vecdot(p[~safe].double(), z[~safe].double())
    depth = z.gather(-1, first).squeeze(-1).double() - expected / mass
    return largest, (depth / temperature - largest.log()).clamp(min=0)
