"""Cheap estimate of divergence: theorem 3 to first order, for every unit and every pair of units at once.

Each sublayer's update gets a gate of one. To first order, closing gates changes the logits of a position by minus the
sum of their derivatives, and theorem 3 turns that into ``KL ≈ Var_p(Δz) / 2``, which for ``y`` drawn from the dense
probabilities ``p`` is ``E[(Δ log p(y))²] / 2``. So one forward pass and a few backward passes, of the log-probability
of drawn tokens, give all gates' derivatives, through everything that follows them; their products give the joint cost
of units. Signs drawn for each position keep the positions of a sequence apart on average, as in the trace estimate of
Hutchinson (1990).

All draws follow from the experiment's seed. How much the estimate of a set would change with other draws is its
``spread``: the standard error over the drawn tokens, which says nothing about other text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Positive
from pipeline.model.decoder import Decoder
from pipeline.model.gates import gated
from pipeline.model.head import Head
from pipeline.model.learning import check_in_memory, only_learning
from pipeline.model.proof import head_of
from pipeline.model.softmax import kl_estimate, normalised
from pipeline.model.structure import BLOCK, SUBLAYERS
from pipeline.model.trajectory import Trajectory, forwards
from pipeline.prune.base import Context, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.divergence import CONFIDENCE, position_weights
from pipeline.prune.methods.random import generator
from pipeline.prune.methods.search import greedy
from pipeline.prune.methods.units import Unit, UnitPruner

Array = NDArray[np.float64]
# Positions whose logits are in memory at a time.
_ROWS = 128


@dataclass(frozen=True)
class DivergenceEstimate(UnitPruner):
    """Removes units one after the other, each time the one that adds least to the estimate.

    ``draws`` tokens are drawn at every position, each for one backward pass. Positions may be weighted by the dense
    model's largest probability to the power of ``confidence``. Scored once per seed, for every sparsity.
    """

    draws: Positive = 4
    confidence: float = CONFIDENCE

    version: ClassVar[int] = 2
    compares: ClassVar[bool] = True
    own_text: ClassVar[bool] = True
    seeded: ClassVar[bool] = True

    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Return, for every sublayer, its estimate alone and its ``slopes`` (sequences · draws): see `slopes_of`."""
        assert context.trajectory is not None
        check_in_memory(decoder.model, self.name, self.name.replace("_estimate", ""))
        slopes = slopes_of(
            decoder, context.trajectory, self.draws, self.confidence, context.seed, context.progress
        ).numpy()
        return [
            {"layer": sublayer.layer, "sublayer": sublayer.kind, "score": estimate(own), "slopes": own.ravel().tolist()}
            for sublayer, own in zip(decoder.sublayers(), slopes.transpose(2, 0, 1), strict=True)
        ]

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        slopes = {
            (row["sublayer"], int(row["layer"])): np.asarray(row["slopes"], float).reshape(-1, self.draws)
            for row in context.scores({})
        }

        def costs(gone: Sequence[Unit], candidates: Sequence[Unit]) -> dict[Unit, float]:
            before = _together(slopes, gone)
            return {unit: estimate(before + _together(slopes, [unit])) for unit in candidates}

        def error(gone: Sequence[Unit]) -> float:
            return spread(_together(slopes, gone))

        units, count = self.units(decoder), self.count(decoder, sparsity)
        path = greedy(units, count, costs, parts=self.parts)
        return self.decision(decoder, path, costs([], units), error if self.draws > 1 else None)


def estimate(slopes: Array) -> float:
    """Return the estimate, in nats per token, for a set of units whose slopes sum to these, (sequences, draws)."""
    return float(np.square(slopes).sum())


def spread(slopes: Array) -> float:
    """Compute the standard error of `estimate` over the draws (at least two), in nats per token.

    The draws of sequences are independent, so their variances add up.
    """
    draws = slopes.shape[1]
    return float(np.sqrt(draws * np.square(slopes).var(1, ddof=1).sum()))


def _together(slopes: Mapping[Unit, Array], gone: Sequence[Unit]) -> Array:
    """Add up the slopes of a set of units."""
    named = [(kind, at) for unit, at in gone for kind in (SUBLAYERS if unit == BLOCK else (unit,))]
    parts = [part for part in named if part in slopes]
    return np.sum([slopes[part] for part in parts], axis=0) if parts else np.zeros(())


def slopes_of(
    decoder: Decoder,
    trajectory: Trajectory,
    draws: int,
    confidence: float,
    seed: int,
    progress: Callable[..., Any],
) -> torch.Tensor:
    """Compute scaled derivatives by the gates of all 2L sublayers, (sequences, draws, 2L) float64.

    Slopes of sublayers that are dropped together are added, then squared: the sum over sequences and draws estimates
    the divergence in nats per token. Sublayers come in the order in which they are computed. Positions are weighted by
    the dense model's largest probability to the power of ``confidence``.
    """
    head = head_of(decoder, torch.float32)
    numbers = generator("divergence estimate", seed, device=head.weight.device)
    passes = list(forwards(trajectory, tight=True))
    parts: list[torch.Tensor] = []
    total = 0.0
    with torch.enable_grad(), only_learning(decoder.model):
        for forward in progress(passes, "estimate", len(passes)):
            with gated(decoder, len(forward.prompts)) as gates:
                kept = forward.at_predictions(forward.run(decoder.model))
            weights, ahead = _ahead(head, kept.detach(), draws, confidence, numbers)
            total += float(weights.sum())
            found = [
                torch.autograd.grad(kept, gates, slope, retain_graph=draw + 1 < draws)
                for draw, slope in enumerate(ahead.to(kept))
            ]
            parts.append(torch.stack([torch.stack([each.flatten() for each in one], 1) for one in found], 1))
    share = torch.tensor(1 / (draws * total), dtype=torch.float64)
    return torch.cat([part.double().cpu() for part in parts]) * kl_estimate(share, 1.0).sqrt()


@torch.no_grad()
def _ahead(
    head: Head, states: torch.Tensor, draws: int, confidence: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return position weights (N,), and derivatives by the states (N, D) of signed log-probabilities of drawn tokens.

    The latter, (draws, N, D), are scaled by the square root of the weights: their squares carry the weights.
    """
    parts = [_drawn(head, rows, draws, confidence, generator) for rows in states.to(head.weight.device).split(_ROWS)]
    return torch.cat([weights for weights, _ in parts]), torch.cat([slopes for _, slopes in parts], 1)


def _drawn(
    head: Head, states: torch.Tensor, draws: int, confidence: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same as `_ahead`, for no more positions than fit in memory at a time."""
    z = head.logits(states)
    p, steepness = normalised(z), head.steepness(z)
    weights = position_weights(p, confidence)
    tokens = torch.multinomial(p, draws, replacement=True, generator=generator)
    drawn = head.weight[tokens] * steepness.gather(1, tokens).unsqueeze(-1)
    slopes = drawn - ((p * steepness) @ head.weight).unsqueeze(1)
    signs = torch.randint(0, 2, tokens.shape, generator=generator, device=tokens.device) * 2 - 1
    scaled = signs * weights.sqrt().to(slopes).unsqueeze(-1)
    return weights, (slopes * scaled.unsqueeze(-1)).transpose(0, 1)
