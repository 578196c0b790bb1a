"""Taylor: remove the units whose weights matter least to the loss on the calibration text, to first order.

The criterion of Shortened LLaMA (Kim et al., 2024, arXiv 2402.02834) for blocks, as its public code adds it up: the
magnitudes of the products ``w · ∂L/∂w`` are summed over all matrices and norms of the block, without biases. L is the
mean over all predicted tokens of the text, as there, where the whole text is one batch. Sublayers get the sum over
their own matrices and norms. The paper's Taylor+ also keeps the first four and the last two blocks: ``kept_first`` and
``kept_last``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Count
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.learning import check_in_memory, only_learning
from pipeline.model.proof import head_of
from pipeline.model.softmax import normalised
from pipeline.model.structure import ATTENTION, BLOCK, MLP
from pipeline.prune.base import Context, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.units import Unit, UnitPruner, decision_of

# Positions whose logits are in memory at a time.
_ROWS = 256
# Pruners of the same units that run no backward pass.
_WITHOUT_GRADIENTS = {ATTENTION: "attn_drop", MLP: "mlp_drop", BLOCK: "shortgpt"}


@dataclass(frozen=True)
class Taylor(UnitPruner):
    """Drops the units of lowest ``Σ |w · ∂L/∂w|``, scored once; L is the mean negative log-likelihood of the text.

    Nothing is dropped in the first ``kept_first`` and the last ``kept_last`` blocks. Raises ValueError if the others
    have too few units.
    """

    unit: Literal["attention", "mlp", "block"] = "attention"  # type: ignore[misc]
    kept_first: Count = 0
    kept_last: Count = 0

    version: ClassVar[int] = 2
    decoder_only: ClassVar[bool] = True
    own_text: ClassVar[bool] = True

    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Score every sublayer and every block."""
        check_in_memory(decoder.model, self.name, _WITHOUT_GRADIENTS[self.unit])
        weights = {id(weight): weight for block in decoder.blocks for weight in _weights(block)}
        products = {key: torch.zeros_like(weight, dtype=torch.float32) for key, weight in weights.items()}
        head, predicted = head_of(decoder, torch.float32), 0
        with only_learning(decoder.model, list(weights.values())), torch.enable_grad():
            for batch in context.each("taylor"):
                states = decoder.final_states(batch)
                predicted += batch[:, 1:].numel()
                slopes = _slopes(head, states.detach(), batch)
                found = torch.autograd.grad(states, list(weights.values()), slopes, allow_unused=True)
                for (key, weight), slope in zip(weights.items(), found, strict=True):
                    if slope is not None:
                        products[key] += weight.detach().float() * slope.float()
        size = {key: float(own.abs().sum(dtype=torch.float64)) / predicted for key, own in products.items()}
        return [
            {"layer": layer, "sublayer": kind, "score": sum(size[id(weight)] for weight in _distinct(modules))}
            for (kind, layer), modules in _units(decoder)
        ]

    def scoring_identity(self) -> dict[str, Any]:
        """Return what scores depend on, without the blocks to keep: all units are scored."""
        identity = super().scoring_identity()
        del identity["kept_first"], identity["kept_last"]
        return identity

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        open_to_it = range(self.kept_first, len(decoder.blocks) - self.kept_last)
        count = self.count(decoder, sparsity)
        if count > (there := sum(layer in open_to_it for _, layer in self.units(decoder))):
            raise ValueError(
                f"sparsity={sparsity.given} asks for {count} units, but pruner.kept_first={self.kept_first} and "
                f"pruner.kept_last={self.kept_last} leave {there} of this model; lower one of them"
            )
        scores = context.scores({})
        mine = [row for row in scores if row["sublayer"] in self.kinds and int(row["layer"]) in open_to_it]
        gone = sorted(mine, key=lambda row: row["score"])[:count]
        return decision_of([(row["sublayer"], int(row["layer"])) for row in gone], scores)


def _units(decoder: Decoder) -> Iterator[tuple[Unit, list[nn.Module]]]:
    """Yield every unit with the modules that compute it and nothing else."""
    blocks = decoder.blocks
    for sublayer in decoder.sublayers():
        modules = [blocks[sublayer.layer].get_submodule(name) for name in sublayer.part.modules]
        yield (sublayer.kind, sublayer.layer), modules
    for layer, block in enumerate(blocks):
        yield (BLOCK, layer), [block]


def _weights(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the matrices and norms of a module, without biases."""
    return (weight for name, weight in module.named_parameters() if "bias" not in name.rpartition(".")[2])


def _distinct(modules: list[nn.Module]) -> list[nn.Parameter]:
    return list({id(weight): weight for module in modules for weight in _weights(module)}.values())


@torch.no_grad()
def _slopes(head: Head, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Compute the derivative of the summed negative log-likelihood of ids (B, T) by the final states (B, T, D).

    It is ``(p - y) W`` for the one-hot next token y, and zero at the last position, which predicts nothing.
    """
    slopes = torch.zeros_like(states, dtype=torch.float32)
    next_ones = ids[:, 1:].flatten().to(head.weight.device)
    rows = states[:, :-1].flatten(0, 1).to(head.weight)
    parts = []
    for some, following in zip(rows.split(_ROWS), next_ones.split(_ROWS), strict=True):
        z = head.logits(some)
        steepness, p = head.steepness(z), normalised(z)
        p[torch.arange(len(p)), following] -= 1
        parts.append((p * steepness) @ head.weight)
    slopes[:, :-1] = torch.cat(parts).view_as(slopes[:, :-1]).to(slopes)
    return slopes.to(states)
