"""Deviation within a few tokens of the vocabulary, renormalised there, as multiple choice reads it (section 7.2)."""

from __future__ import annotations

import torch

from pipeline.measure.divergence import deviations, probabilities


def subspace(z: torch.Tensor, delta: torch.Tensor, temperature: float) -> dict[str, torch.Tensor]:
    """Compute the deviation within sets of tokens, from (N, k) dense logits of each set and their perturbation.

    Returns (N,) float64: ``kl``, ``kl_reverse`` and ``cos_p`` of the probabilities renormalised inside the set,
    ``flip`` (1 where another token wins), ``margin_dense`` and ``margin_pruned``: the logit of the set's dense winner
    over its best rival's, in nats at the temperature; a negative pruned margin is a flip.
    """
    # A set of a few tokens costs nothing in double precision.
    z, delta = z.double(), delta.double()
    measured = deviations(probabilities(z, temperature), z, delta, temperature)
    dense, pruned = margins(z, delta)
    return {
        "kl": measured["kl"],
        "kl_reverse": measured["kl_reverse"],
        "cos_p": 1 - measured["deviation_p"],
        "flip": (pruned < 0).double(),
        "margin_dense": dense / temperature,
        "margin_pruned": pruned / temperature,
    }


def margins(z: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the dense winner's lead over its best rival, (N,), before and after a perturbation of (N, k) logits."""
    winner = z.argmax(-1, keepdim=True)
    rivals = torch.zeros_like(z, dtype=torch.bool).scatter_(-1, winner, True)
    before, after = (
        (x.gather(-1, winner).squeeze(-1), x.masked_fill(rivals, float("-inf")).amax(-1)) for x in (z, z + delta)
    )
    return before[0] - before[1], after[0] - after[1]


def ranks(z: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Count the vocabulary's tokens with a larger logit: (N, V) logits and (N, k) token ids to (N, k) int64."""
    chosen = z.gather(-1, tokens)
    return torch.stack([(z > column.unsqueeze(-1)).sum(-1) for column in chosen.unbind(-1)], -1)


def rank_matched(order: torch.Tensor, taken: torch.Tensor, draws: int, generator: torch.Generator) -> torch.Tensor:
    """Draw random tokens whose dense ranks are near the ranks of given tokens: (draws, k) token ids.

    ``order`` (V,) are all token ids by falling logit, ``taken`` (k,) the ranks to match. A token of rank r is matched
    by one of rank r/2 to 2r + 2k, never by one of the given tokens, nor by the same one twice in a draw. Raises
    ValueError if the vocabulary has fewer than 2k tokens.
    """
    given, k = set(taken.tolist()), len(taken)
    if len(order) < 2 * k:
        raise ValueError(f"a vocabulary of {len(order)} tokens is too small for {k} random tokens besides {k} options")
    sets = []
    for _ in range(draws):
        picks: list[int] = []
        for rank in taken.tolist():
            high = min(2 * rank + 2 * k + 1, len(order))
            # More ranks than are given or picked, also where the vocabulary ends, so that the loop below ends.
            low = max(0, min(rank // 2, high - 2 * k))
            while (pick := int(torch.randint(low, high, (1,), generator=generator))) in given or pick in picks:
                continue
            picks.append(pick)
        sets.append(picks)
    return order[torch.tensor(sets)]
