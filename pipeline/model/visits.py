"""Which parts of a model the tokens of its proof visit: of the experts of a mixture, each token takes few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from pipeline.common.runs import in_runs
from pipeline.model.decoder import Decoder, Linear
from pipeline.model.experts import one_expert_at_a_time
from pipeline.model.linear_inputs import linear_inputs
from pipeline.model.short_pass import evaluating, tokens

# Names of parts, relative to their block, by the number of the block.
Unvisited = Mapping[int, tuple[str, ...]]


@torch.inference_mode()
def unvisited(decoder: Decoder) -> Unvisited:
    """Return the parts with matrices that no token of the proof is multiplied with: experts, mostly.

    Blocks all of whose parts are visited are left out.
    """
    linears = [decoder.linears(layer) for layer in range(len(decoder.blocks))]
    seen = [dict(block.matrices) for block in decoder.structure.blocks]
    visited: set[str] = set()
    if any(linear.expert is not None for mine in linears for linear in mine):
        model, watched = decoder.model, [linear for mine in linears for linear in mine]

        def note(names: tuple[str, ...], x: torch.Tensor) -> None:
            visited.update(names)

        with one_expert_at_a_time(model), evaluating(model), linear_inputs(watched, note):
            model(tokens(model).to(decoder.device), use_cache=False)
    found = {}
    for layer, mine in enumerate(linears):
        parts: dict[str, bool] = {}
        for linear in mine:
            own = decoder.structure.own_name(layer, linear.parameter)
            part = _part(linear, own)
            known = own in seen[layer] if linear.expert is None else linear.name in visited
            parts[part] = parts.get(part, False) or known
        if missed := tuple(part for part, known in parts.items() if not known):
            found[layer] = missed
    return found


def _part(linear: Linear, own: str) -> str:
    """Return the name of the expert that a matrix belongs to, or of its module; ``own`` is its name in the block."""
    path = own.rpartition(".")[0]
    if linear.expert is not None:
        return f"{path}.{linear.expert}"
    names = path.split(".")
    numbers = [at for at, name in enumerate(names) if name.isdecimal()]
    return ".".join(names[: numbers[-1] + 1]) if numbers else path


def listed(parts: Sequence[str]) -> str:
    """Return names of parts as text, those with a number together: ``mlp.experts 1, 4 to 6``."""
    groups: dict[str, list[int]] = {}
    for part in parts:
        path, _, last = part.rpartition(".")
        groups.setdefault(path if last.isdecimal() else part, []).extend([int(last)] if last.isdecimal() else [])
    return ", ".join(f"{path} {in_runs(numbers)}".rstrip() for path, numbers in groups.items())
