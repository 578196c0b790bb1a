"""The whole proof of a structure, as it is kept: every sum, every removal of a sublayer, and the logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.model.decoder import Decoder
from pipeline.model.offload import is_offloaded
from pipeline.model.proof import check, drops, equations, prove
from pipeline.model.structure import Structure
from pipeline.model.visits import Unvisited

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Proof:
    """A structure that was held against the model.

    ``errors`` are the largest relative errors of each kind of equation, empty for a model that is not entirely in
    memory. ``unvisited`` are the experts, by block, of which the proof says nothing: none of its tokens visits them.
    """

    structure: Structure
    errors: Mapping[str, float]
    unvisited: Unvisited

    def plain(self) -> dict[str, Any]:
        """Return everything as values that JSON can hold."""
        return asdict(self)


def full_proof(model: PreTrainedModel) -> Proof:
    """Prove the structure of a model in its own dtype, the removal of every sublayer included.

    Raises Unfit as `prove` does, and if a sublayer cannot be dropped.
    """
    decoder = Decoder(model)
    unvisited = prove(model)
    if is_offloaded(model):
        return Proof(decoder.structure, {}, unvisited)
    errors: dict[str, float] = {}
    for kind, found in (("sums", equations(decoder)), ("without a sublayer", drops(decoder))):
        for error, equation in found:
            check(model, error, equation)
            name = "logits" if equation.startswith("logits") else kind
            errors[name] = max(error, errors.get(name, 0.0))
    return Proof(decoder.structure, errors, unvisited)
