"""Perplexity: remove the units without which the calibration text is least unlikely, one after the other.

SLEB (Song et al., ICML 2024, arXiv 2402.09025) removes blocks in this way, and BlockPruner (Zhong et al., ACL Findings
2025, arXiv 2406.10594) attention and MLP sublayers in one ranking. All candidates are
measured again after each removal. SLEB's code spares the first and the last block; here every unit is a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.proof import head_of
from pipeline.model.softmax import log_normaliser
from pipeline.model.trajectory import Trajectory
from pipeline.prune.methods.unit_costs import Cost
from pipeline.prune.methods.unit_search import UnitSearch

# Positions whose logits are in memory at a time.
_ROWS = 256


@dataclass(frozen=True)
class Perplexity(UnitSearch):
    """Drops units one after the other, each time the one that raises the text's negative log-likelihood least.

    The cost is the rise above the dense model's, in nats per token; it may be negative. Of text that the model wrote
    itself only the continuations count.
    """

    version: ClassVar[int] = 2

    def cost(self, decoder: Decoder, trajectory: Trajectory) -> Cost:
        head = head_of(decoder, torch.float32)
        tokens = torch.tensor([token for row in trajectory.tokens for token in row])

        def added(start: int, states: torch.Tensor) -> list[float]:
            own = tokens[start : start + states.shape[1]]
            losses = negative_log_likelihood(head, states.flatten(0, 1), own.repeat(len(states)))
            return [total / len(tokens) for total in losses.view(len(states), -1).sum(-1).tolist()]

        return Cost(added, dense=added(0, trajectory.final.unsqueeze(0))[0])


def negative_log_likelihood(head: Head, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Compute ``-log p(token)``, in nats, of tokens (N,) that states (N, D) predict: (N,) float64."""
    losses = []
    for rows, next_ones in zip(states.split(_ROWS), tokens.split(_ROWS), strict=True):
        z = head.logits(rows.to(head.weight.device))
        chosen = z.gather(1, next_ones.to(z.device).unsqueeze(1)).squeeze(1)
        losses.append(log_normaliser(z) - chosen.double())
    return torch.cat(losses)
