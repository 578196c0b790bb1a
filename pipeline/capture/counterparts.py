"""Counterparts for the layer protocol: the state after each sublayer in its pruned form.

A decision that only drops units has none: its layer protocol drops every sublayer, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from pipeline.common.terminal import Progress
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values
from pipeline.model.offload import resident
from pipeline.model.residual import layout, tap
from pipeline.model.trajectory import KEY, Forward, Trajectory, forwards
from pipeline.prune.decision import Change, Decision
from pipeline.prune.surgery import changed_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FILE = "counterparts.safetensors"


def has_counterparts(decision: Decision) -> bool:
    """Return whether the layer protocol needs counterparts, rather than the stream before each sublayer."""
    return bool(decision.changes) or not decision.drops


@torch.inference_mode()
def capture_counterparts(
    model: PreTrainedModel, decision: Decision, dense: Trajectory, progress: Progress
) -> torch.Tensor:
    """Compute ``x + f'(x)`` of every sublayer, each on the dense inputs and the full dense context.

    A dropped sublayer leaves ``x``.

    ``model`` is dense. It runs once over its own trajectory; after each block the block runs again on the same
    arguments, once for each of its sublayers whose weights change, with only these changed. Returns (S, N, D) for S
    sublayers in the order in which they are computed. Raises ValueError if they are not finite.
    """
    parts = list(forwards(dense))
    total = len(parts) * len(dense.after)
    ticks = iter(progress(range(total), "counterparts", total))
    states = [_counterparts_of(part, model, decision, lambda: next(ticks)) for part in parts]
    next(ticks, None)
    found = torch.cat(states, 1)
    check_values(found, "counterparts of sublayers", KEY)
    return found


def _counterparts_of(
    part: Forward, model: PreTrainedModel, decision: Decision, tick: Callable[[], object]
) -> torch.Tensor:
    """Compute the counterparts (2L, n, D) at the n positions of one forward pass."""
    decoder, plan, gone = Decoder(model), layout(Decoder(model)), decision.dropped
    sublayers = decoder.sublayers()
    mine = [[(i, s.kind) for i, s in enumerate(sublayers) if s.layer == layer] for layer in range(len(decoder.blocks))]
    states: dict[int, torch.Tensor] = {}
    updates: dict[int, torch.Tensor] = {}
    found: dict[int, torch.Tensor] = {}
    again: list[int] = []

    def on_state(index: int, state: torch.Tensor) -> None:
        if not again:
            states[index] = state

    def on_update(index: int) -> Callable[[torch.Tensor], None]:
        def note(update: torch.Tensor) -> None:
            if not again or again == [index]:
                # Some blocks (Falcon) add to an update in place.
                updates[index] = update.clone()
            if again == [index]:
                raise _Seen

        return note

    def rerun(layer: int) -> Callable[..., None]:
        def hook(block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            change = decision.changes.get(layer, Change())
            for index, kind in mine[layer]:
                x = states[plan.before[index]]
                if (layer, kind) in gone:
                    found[index] = part.at_predictions(x)
                    tick()
                    continue
                names = [name for name in {**change.masks, **change.weights} if decoder.belongs(name, layer, kind)]
                if names:
                    again[:] = [index]
                    with resident(block), changed_weights(model, change, names), suppress(_Seen):
                        block.forward(*args, **kwargs)
                    again.clear()
                found[index] = part.at_predictions(x + decoder.by_token(updates[index]).view_as(x))
                tick()
            states.clear()
            updates.clear()

        return hook

    with ExitStack() as stack:
        for index, sublayer in enumerate(sublayers):
            stack.enter_context(sublayer.watched(on_update(index)))
        for layer, block in enumerate(decoder.blocks):
            stack.callback(block.register_forward_hook(rerun(layer), with_kwargs=True).remove)
        stack.enter_context(tap(decoder, on_state))
        part.run(model)
    return torch.stack([found[index] for index in range(len(plan.before))])


class _Seen(Exception):
    """Ends the second pass through a block once the sublayer's update is known."""


def save_counterparts(states: torch.Tensor, folder: Path) -> None:
    save_file({"states": states}, folder / _FILE)


def load_counterparts(folder: Path) -> torch.Tensor:
    return load_file(folder / _FILE)["states"]
