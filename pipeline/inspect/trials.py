"""Tries everything that pruning does on a tiny random model of a type, against plain transformers."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pipeline.capture.counterparts import capture_counterparts
from pipeline.common.errors import plain
from pipeline.inspect.tiny_models import (
    Kind,
    Wrong,
    block_decisions,
    fresh,
    logits,
    named,
    same,
    same_cached,
    silenced,
    sublayer_decisions,
    tokens,
    wanda_decision,
)
from pipeline.model import proof
from pipeline.model.block_form import Unfit
from pipeline.model.continuations import read
from pipeline.model.decoder import Decoder
from pipeline.model.proof import ROUNDING, drops, equations
from pipeline.model.residual import layout, tap
from pipeline.model.sources.tiny import OK, trial
from pipeline.model.structure import BLOCK
from pipeline.model.trajectory import forwards
from pipeline.prune.checkpoint import as_checkpoint, as_loaded
from pipeline.prune.decision import Change, Decision
from pipeline.prune.surgery import apply, dropped

REFUSED, FAILED = "refused", "failed"
# Steps on text that a model continues, which an encoder does not.
_OF_TEXT = ("capture",)


@dataclass(frozen=True)
class Outcome:
    """What became of a type: ``status`` is ok, refused, failed or not a text decoder; ``reason`` says why."""

    type: str
    status: str
    reason: str = ""


def try_type(name: str, encoder: bool = False) -> Outcome:
    """Return what pruning can do with a type, as a causal model or as an encoder, by doing it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not encoder and (first := trial(name)).status != OK:
            return Outcome(name, first.status, first.reason)
        steps = [step for step in STEPS if not encoder or step not in _OF_TEXT]
        return next(filter(None, (_problem(Kind(name, encoder), step) for step in steps)), Outcome(name, OK))


def _problem(kind: Kind, step: str) -> Outcome | None:
    try:
        STEPS[step](kind)
    except Unfit as error:
        return Outcome(kind.name, REFUSED, str(error))
    except Exception as error:
        return Outcome(kind.name, FAILED, f"{step}: {plain(error)}")
    return None


def prove(kind: Kind) -> None:
    """Find the structure, and hold it against the model: every sum, every removal, the logits of its final states."""
    decoder = Decoder(fresh(kind))
    proof.prove(decoder.model)
    for error, equation in (*equations(decoder), *drops(decoder)):
        if not error <= ROUNDING[torch.float32]:
            raise Wrong(f"{equation} is off by {error:.1e}")
    if not decoder.structure.encoder:
        with torch.inference_mode():
            states = decoder.final_states(tokens())
            found = torch.stack([proof.head_of(decoder).logits(rows) for rows in states])
        same(found, logits(decoder.model), "logits of the final states")


def drop_sublayers(kind: Kind) -> None:
    """Drop the first and the last sublayer of each kind: logits without them, and the same with a cache."""
    for decision in sublayer_decisions(kind):
        pruned, dense = fresh(kind), fresh(kind)
        with silenced(Decoder(dense), decision):
            expected = logits(dense)
        apply(pruned, decision)
        same(logits(pruned), expected, "logits")
        same_cached(pruned)


def remove_block(kind: Kind) -> None:
    """Remove a block: the logits are those without it, and the same with a cache."""
    pruned, dense = fresh(kind), fresh(kind)
    decision = next(block_decisions(kind))
    with dropped(Decoder(dense), {BLOCK: decision.blocks}):
        expected = logits(dense)
    apply(pruned, decision)
    same(logits(pruned), expected, "logits without the block")
    same_cached(pruned)


def change_weights(kind: Kind) -> None:
    """Prune half of every row of every matrix with Wanda; the model computes what its changed weights say."""
    model, by_hand = fresh(kind), fresh(kind)
    decision = wanda_decision(kind)
    apply(model, decision)
    for change in decision.changes.values():
        for name, mask in change.masks.items():
            by_hand.get_parameter(name).data[mask] = 0
    if not decision.changes:
        raise Wrong("no matrix was found")
    for layer in range(len(Decoder(model).blocks)):
        for linear in Decoder(model).linears(layer):
            zeros, columns = (linear.weight == 0).sum(1), linear.weight.shape[1]
            if not (zeros == columns // 2).all():
                raise Wrong(f"{linear.name} does not have {columns // 2} zeros in every row")
    same(logits(model), logits(by_hand), "logits of the changed weights")


def capture(kind: Kind) -> None:
    """Capture the stream around every sublayer; an unchanged counterpart equals what the model computes."""
    model = fresh(kind)
    trajectory, decoder, plan = read(model, tokens().tolist()), Decoder(model), layout(Decoder(model))
    states: dict[int, torch.Tensor] = {}
    (part,) = forwards(trajectory)
    with torch.inference_mode(), tap(decoder, lambda index, x: states.update({index: part.at_predictions(x)})):
        part.run(model)
    trajectory = replace(trajectory, before=plan.before, after=plan.after)
    unchanged = {
        layer: Change(
            {w.parameter: torch.zeros(model.get_parameter(w.parameter).shape, dtype=torch.bool) for w in mine}
        )
        for layer in range(len(decoder.blocks))
        if (mine := decoder.linears(layer))
    }
    found = capture_counterparts(model, Decision(changes=unchanged), trajectory, lambda items, *_: items)
    for index, after in enumerate(trajectory.after):
        same(found[index], states[after], f"state after sublayer {index}")


def export(kind: Kind) -> None:
    """Write checkpoints without sublayers, without a block, with changed weights; load them with transformers."""
    for decision in (*sublayer_decisions(kind), wanda_decision(kind)):
        _exported(kind, decision)
    problem: Exception | None = None
    for decision in block_decisions(kind):
        try:
            return _exported(kind, decision)
        except (Wrong, ValueError, RuntimeError) as error:
            problem = error
    raise Wrong(f"no block can be removed: {plain(problem or ValueError())}")


def _exported(kind: Kind, decision: Decision) -> None:
    pruned, model = fresh(kind), fresh(kind)
    apply(pruned, decision)
    as_checkpoint(model, decision)
    with tempfile.TemporaryDirectory() as folder:
        with as_loaded(Decoder(model)):
            model.save_pretrained(folder)
        again = type(model).from_pretrained(Path(folder), attn_implementation="eager").eval()
    same(logits(again), logits(pruned), f"logits of the exported checkpoint ({named(decision)})")


STEPS: Mapping[str, Callable[[Kind], None]] = {
    "proof": prove,
    "drop sublayers": drop_sublayers,
    "remove a block": remove_block,
    "wanda": change_weights,
    "capture": capture,
    "export": export,
}
