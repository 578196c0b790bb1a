"""The cheap form of divergence: theorem 3 to first order, for every unit and every pair of units at once.

Each sublayer's update gets a gate of one. To first order, closing gates changes the logits of a position by minus the
sum of their derivatives, and theorem 3 makes of that ``KL ≈ Var_p(Δz) / 2``, which for ``y`` drawn from the dense
probabilities ``p`` is ``E[(Δ log p(y))²] / 2``. So one pass forward and a few passes backward, of the log-probability
of drawn tokens, give all gates' derivatives, through everything that follows them; their products give what units cost
together. Signs drawn for each position keep the positions of a sequence apart on average, as in the trace estimate of
Hutchinson (1990).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from pipeline.capture import Trajectory, forwards
from pipeline.component import Positive
from pipeline.decoder import ATTENTION, BLOCK, MLP, SUBLAYERS, Decoder
from pipeline.measures.divergence import kl_estimate
from pipeline.measures.head import Head
from pipeline.offload import is_offloaded
from pipeline.pruners.base import Context, Score
from pipeline.pruners.decision import Decision
from pipeline.pruners.divergence import CONFIDENCE, head_of, position_weights
from pipeline.pruners.search import greedy
from pipeline.pruners.units import Unit, UnitPruner
from pipeline.residual import first
from pipeline.sparsity import Sparsity

# Positions whose logits are in memory at a time.
_ROWS = 128


@dataclass(frozen=True)
class DivergenceEstimate(UnitPruner):
    """Drops attention sublayers one after the other, each time the one that adds least to the estimate.

    ``draws`` tokens are drawn at every position, each for one pass backward. A position counts by the dense model's
    largest probability to the power of ``confidence``. Scored once, for every sparsity.
    """

    draws: Positive = 4
    confidence: float = CONFIDENCE

    unit: ClassVar[str] = "attention"
    compares: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = (ATTENTION,)

    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Of every pair of sublayers, also with itself: their shares of the estimate of a set that holds both."""
        assert context.trajectory is not None
        if is_offloaded(decoder.model):
            raise ValueError(
                f"pruner={self.name} passes backward through the model, which needs all its weights in memory; give "
                f"pruner={self.name.replace('_estimate', '')}, or more of it in model.max_memory"
            )
        shares = pair_shares(decoder, context.trajectory, self.draws, self.confidence, context.progress).tolist()
        names = [(sublayer.kind, sublayer.layer) for sublayer in decoder.sublayers()]
        return [
            {"layer": layer, "sublayer": kind, "other_layer": at, "other_sublayer": other, "score": value}
            for (kind, layer), row in zip(names, shares, strict=True)
            for (other, at), value in zip(names, row, strict=True)
        ]

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        shares = {
            (row["sublayer"], row["layer"], row["other_sublayer"], row["other_layer"]): row["score"]
            for row in context.scores({})
        }

        def costs(gone: Sequence[Unit], candidates: Sequence[Unit]) -> dict[Unit, float]:
            return {unit: _together(shares, [*gone, unit]) for unit in candidates}

        units, count = self.units(decoder), self.count(decoder, sparsity)
        path = greedy(units, count, costs, lazy=False, parts=self.parts)
        return self.decision(decoder, path, costs([], units))


@dataclass(frozen=True)
class DivergenceEstimateMLP(DivergenceEstimate):
    """The same with MLP sublayers."""

    unit: ClassVar[str] = "mlp"
    kinds: ClassVar[tuple[str, ...]] = (MLP,)


@dataclass(frozen=True)
class DivergenceEstimateBlocks(DivergenceEstimate):
    """The same with whole blocks."""

    unit: ClassVar[str] = "block"
    kinds: ClassVar[tuple[str, ...]] = (BLOCK,)


@dataclass(frozen=True)
class DivergenceEstimateJoint(DivergenceEstimate):
    """The same with attention and MLP sublayers, in one ranking."""

    unit: ClassVar[str] = "sublayer"
    kinds: ClassVar[tuple[str, ...]] = SUBLAYERS


def _together(shares: dict[tuple[str, int, str, int], float], gone: Sequence[Unit]) -> float:
    """The estimate of a set of units, in nats a token."""
    parts = [(kind, at) for unit, at in gone for kind in (SUBLAYERS if unit == BLOCK else (unit,))]
    return sum(shares[*one, *other] for one in parts for other in parts)


def pair_shares(
    decoder: Decoder, trajectory: Trajectory, draws: int, confidence: float, progress: Callable[..., Any]
) -> torch.Tensor:
    """What each pair of sublayers adds to the estimate of a set that holds both, (2L, 2L) float64, in nats a token.

    Sublayers come in the order in which they are computed; the estimate of a set is the sum over all its pairs.
    Positions count by the dense model's largest probability to the power of ``confidence``.
    """
    head = head_of(decoder)
    generator = torch.Generator(head.weight.device).manual_seed(0)
    passes = list(forwards(trajectory, tight=True))
    products = torch.zeros(2 * len(decoder.blocks), 2 * len(decoder.blocks), dtype=torch.float64)
    total = 0.0
    with torch.enable_grad(), _frozen(decoder.model):
        for forward in progress(passes, "estimate", len(passes)):
            with _gates(decoder, len(forward.prompts)) as gates:
                kept = forward.at_predictions(forward.run(decoder.model))
            weights, ahead = _ahead(head, kept.detach(), draws, confidence, generator)
            total += float(weights.sum())
            for draw, slope in enumerate(ahead.to(kept)):
                found = torch.autograd.grad(kept, gates, slope, retain_graph=draw + 1 < draws)
                slopes = torch.stack([each.flatten() for each in found], 1).double().cpu()
                products += slopes.T @ slopes
    return kl_estimate(products / (draws * total), 1.0)


@torch.no_grad()
def _ahead(
    head: Head, states: torch.Tensor, draws: int, confidence: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions' weights (N,), and derivatives by the states (N, D) of signed log-probabilities of drawn tokens.

    The latter, (draws, N, D), are scaled so that their squares count by the weights.
    """
    parts = [_drawn(head, rows, draws, confidence, generator) for rows in states.to(head.weight.device).split(_ROWS)]
    return torch.cat([weights for weights, _ in parts]), torch.cat([slopes for _, slopes in parts], 1)


def _drawn(
    head: Head, states: torch.Tensor, draws: int, confidence: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of as many positions as are in memory at a time."""
    z = head.logits(states)
    p, steepness = torch.softmax(z, -1), head.steepness(z)
    weights = position_weights(p, confidence)
    tokens = torch.multinomial(p, draws, replacement=True, generator=generator)
    drawn = head.weight[tokens] * steepness.gather(1, tokens).unsqueeze(-1)
    slopes = drawn - ((p * steepness) @ head.weight).unsqueeze(1)
    signs = torch.randint(0, 2, tokens.shape, generator=generator, device=tokens.device) * 2 - 1
    scaled = signs * weights.sqrt().to(slopes).unsqueeze(-1)
    return weights, (slopes * scaled.unsqueeze(-1)).transpose(0, 1)


@contextmanager
def _gates(decoder: Decoder, sequences: int) -> Iterator[list[torch.Tensor]]:
    """Multiply what each sublayer adds by a gate of one, for every sequence of a batch."""
    gates, weight = [], next(decoder.model.parameters())

    def gated(gate: torch.Tensor) -> Callable[..., Any]:
        def hook(module: nn.Module, args: object, output: Any) -> Any:
            update = first(output)
            # Some blocks (OPT) flatten batch and tokens for their MLP.
            scaled = (update.view(sequences, -1, update.shape[-1]) * gate.to(update)).view_as(update)
            return (scaled, *output[1:]) if isinstance(output, tuple) else scaled

        return hook

    with ExitStack() as stack:
        for sublayer in decoder.sublayers():
            gate = torch.ones(sequences, 1, 1, device=weight.device, requires_grad=True)
            stack.callback(sublayer.exit.register_forward_hook(gated(gate)).remove)
            gates.append(gate)
        yield gates


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Without derivatives by the weights, which nobody asks for."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
