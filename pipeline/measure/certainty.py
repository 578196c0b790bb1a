"""Confidence of the dense model in its next token, and whether pruning changes that token."""

from __future__ import annotations

import torch

# Number of entries of which the maximum is taken before that of all is looked for.
_RUN = 256


def top(z: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the argmax (N, 1) of dense logits (N, V), its gap to the second largest, and flips by a perturbation.

    The gap is in logits, (N,) float64. A flip, (N,) float64 of 0 and 1, is a position at which another token's
    perturbed logit is above that of the dense argmax: ties do not count.
    """
    first = _argmax(z)
    largest = z.gather(-1, first)
    # Mask the largest entry for a moment: a second maximum costs far less than a sort.
    z.scatter_(-1, first, float("-inf"))
    second = z.amax(-1)
    z.scatter_(-1, first, largest)
    flip = (z + delta).amax(-1) > (largest + delta.gather(-1, first)).squeeze(-1)
    return first, (largest.squeeze(-1) - second).double(), flip.double()


def _argmax(z: torch.Tensor) -> torch.Tensor:
    """Return the argmax (N, 1) of logits (N, V), found in the run of entries with the largest maximum.

    Maxima of runs take an eighth of the time of torch's argmax over all entries.
    """
    whole = z.shape[-1] // _RUN * _RUN
    if not whole:
        return z.argmax(-1, keepdim=True)
    runs = z[:, :whole].unflatten(-1, (-1, _RUN))
    run = runs.amax(-1).argmax(-1)
    found = (run * _RUN + runs[torch.arange(len(z), device=z.device), run].argmax(-1)).unsqueeze(-1)
    if whole == z.shape[-1]:
        return found
    rest = whole + z[:, whole:].argmax(-1, keepdim=True)
    return torch.where(z.gather(-1, rest) > z.gather(-1, found), rest, found)


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
