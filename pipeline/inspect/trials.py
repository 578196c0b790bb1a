"""Tries everything that pruning does on a tiny random model of a type, against plain transformers."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from pipeline.capture.counterparts import capture_counterparts
from pipeline.config.sparsity import parse
from pipeline.model import proof
from pipeline.model.continuations import read
from pipeline.model.decoder import Decoder
from pipeline.model.discovery import Unfit, structure_of
from pipeline.model.proof import ROUNDING, drops, equations
from pipeline.model.residual import layout, tap
from pipeline.model.sources.tiny import OK, model_of, tiny_config, trial
from pipeline.model.structure import ATTENTION, BLOCK, SUBLAYERS, Structure
from pipeline.model.trajectory import forwards
from pipeline.prune.base import Context
from pipeline.prune.checkpoint import as_checkpoint
from pipeline.prune.decision import Change, Decision
from pipeline.prune.methods.wanda import Wanda
from pipeline.prune.surgery import apply, dropped

REFUSED, FAILED = "refused", "failed"
# More tokens than any window or chunk of a tiny model has, and tokens to generate.
_TOKENS, _NEW = 32, 8
# Largest difference of logits, relative to the largest, that another order of summation explains in float32.
_NEAR = 1e-4


@dataclass(frozen=True)
class Outcome:
    """What became of a type: ``status`` is ok, refused, failed or not a text decoder; ``reason`` says why."""

    type: str
    status: str
    reason: str = ""


class Wrong(Exception):
    """A step gave something else than plain transformers."""


def try_type(kind: str) -> Outcome:
    """Return what pruning can do with a type, by doing it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = trial(kind)
        if first.status != OK:
            return Outcome(kind, first.status, first.reason)
        return next(filter(None, (_problem(kind, name) for name in STEPS)), Outcome(kind, OK))


def _problem(kind: str, step: str) -> Outcome | None:
    try:
        STEPS[step](kind)
    except Unfit as error:
        return Outcome(kind, REFUSED, str(error))
    except Exception as error:
        return Outcome(kind, FAILED, f"{step}: {type(error).__name__}: {_line(error)}")
    return None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


# --- the steps -----------------------------------------------------------------------------------------------------


def prove(kind: str) -> None:
    """Find the structure, and hold it against the model: every sum, every removal, the logits."""
    decoder = Decoder(fresh(kind))
    proof.prove(decoder.model)
    for error, equation in (*equations(decoder), *drops(decoder)):
        if not error <= ROUNDING[torch.float32]:
            raise Wrong(f"{equation} is off by {error:.1e}")


def drop_sublayers(kind: str) -> None:
    """Drop the first and the last sublayer of each kind: logits without them, and the same with a cache."""
    for decision in _sublayer_decisions(kind):
        pruned, dense = fresh(kind), fresh(kind)
        with silenced(Decoder(dense), decision):
            expected = logits(dense)
        apply(pruned, decision)
        _same(logits(pruned), expected, "logits")
        _same_cached(pruned)


def remove_block(kind: str) -> None:
    """Remove a block: the logits are those without it, and the same with a cache."""
    pruned, dense = fresh(kind), fresh(kind)
    decision = next(_block_decisions(kind))
    with dropped(Decoder(dense), {BLOCK: decision.blocks}):
        expected = logits(dense)
    apply(pruned, decision)
    _same(logits(pruned), expected, "logits without the block")
    _same_cached(pruned)


def wanda(kind: str) -> None:
    """Prune half of every row of every matrix with Wanda; the model computes what its changed weights say."""
    model, by_hand = fresh(kind), fresh(kind)
    decision = _wanda(kind)
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
    _same(logits(model), logits(by_hand), "logits of the changed weights")


def capture(kind: str) -> None:
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
        _same(found[index], states[after], f"state after sublayer {index}")


def export(kind: str) -> None:
    """Write checkpoints without sublayers, without a block, with changed weights; load them with transformers."""
    for decision in (*_sublayer_decisions(kind), _wanda(kind)):
        _exported(kind, decision)
    problem: Exception | None = None
    for decision in _block_decisions(kind):
        try:
            return _exported(kind, decision)
        except (Wrong, ValueError, RuntimeError) as error:
            problem = error
    raise Wrong(f"no block can be removed: {_line(problem or ValueError())}")


def _exported(kind: str, decision: Decision) -> None:
    pruned, model = fresh(kind), fresh(kind)
    apply(pruned, decision)
    as_checkpoint(model, decision)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = AutoModelForCausalLM.from_pretrained(Path(folder), attn_implementation="eager").eval()
    _same(logits(again), logits(pruned), f"logits of the exported checkpoint ({_named(decision)})")


STEPS: Mapping[str, Callable[[str], None]] = {
    "proof": prove,
    "drop sublayers": drop_sublayers,
    "remove a block": remove_block,
    "wanda": wanda,
    "capture": capture,
    "export": export,
}


# --- what the steps share ------------------------------------------------------------------------------------------


@cache
def _config(kind: str) -> PretrainedConfig:
    return tiny_config(kind)


def fresh(kind: str) -> PreTrainedModel:
    """Return a tiny model of a type, the same each time."""
    model = model_of(copy.deepcopy(_config(kind)))
    model.residual_structure, model.config.use_cache = _structure(kind)
    return model


@cache
def _structure(kind: str) -> tuple[Structure, bool]:
    """Return the structure of a type, and whether it generates with a cache."""
    model = model_of(copy.deepcopy(_config(kind)))
    proof.prove(model)
    return structure_of(model), model.config.use_cache


def tokens() -> torch.Tensor:
    """Return two rows of token ids (2, _TOKENS)."""
    return torch.randint(3, 250, (2, _TOKENS), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    """Compute logits (2, T, V) without a cache."""
    return model(tokens(), use_cache=False).logits


@contextmanager
def silenced(decoder: Decoder, decision: Decision) -> Iterator[None]:
    """Let the modules of dropped sublayers write zeros within the block, without any surgery."""

    def zeros(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple | list):
            return type(output)([torch.zeros_like(output[0]), *output[1:]])
        return torch.zeros_like(output)

    with ExitStack() as stack:
        for layer, kind in decision.dropped:
            for module in decoder.sublayer(layer, kind).exits:
                stack.callback(module.register_forward_hook(zeros).remove)
        yield


def _sublayer_decisions(kind: str) -> list[Decision]:
    """Return decisions that drop the first, and the last, sublayer of each kind that the model runs without.

    A sublayer whose keys and values others share may be refused, but not all of a kind.
    """
    decoder = Decoder(fresh(kind))
    found: list[Decision] = []
    for part in SUBLAYERS:
        layers = [layer for layer in range(len(decoder.blocks)) if decoder.has(layer, part)]
        free = []
        for layer in layers:
            decision = Decision(attention=(layer,)) if part == ATTENTION else Decision(mlp=(layer,))
            with suppress(ValueError):
                apply(fresh(kind), decision)
                free.append(decision)
        if layers and not free:
            raise Wrong(f"no {part} sublayer can be dropped")
        found += [free[at] for at in dict.fromkeys((0, len(free) - 1)) if free]
    return found


def _block_decisions(kind: str) -> Iterator[Decision]:
    """Yield decisions to remove a block, those in the middle first, whose others do not depend on its number.

    Where a configuration says by position what a block is, only some blocks can be removed.
    """
    last = len(Decoder(fresh(kind)).blocks) - 1
    problem: ValueError = ValueError("it has one block")
    found = 0
    for layer in dict.fromkeys((*range(1, last), 0, last)):
        try:
            apply(fresh(kind), decision := Decision(blocks=(layer,)))
        except ValueError as error:
            problem = error
        else:
            found += 1
            yield decision
    if not found:
        raise problem


def _wanda(kind: str) -> Decision:
    model = fresh(kind)
    return Wanda(name="wanda").decide(Decoder(model), parse(0.5), Context([tokens()]))


def _same(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Raise Wrong unless two results differ by rounding alone."""
    off = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    if not off <= _NEAR:
        raise Wrong(f"{what}: off by {off:.1e} of the largest")


@torch.no_grad()
def _same_cached(model: PreTrainedModel) -> None:
    """Raise Wrong unless generating with a cache gives the tokens that generating without one gives."""
    ids = tokens()
    settings: dict[str, Any] = {"max_new_tokens": _NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones_like(ids)
    cached, plain = (
        model.generate(ids, attention_mask=mask, use_cache=cache and model.config.use_cache, **settings).tolist()
        for cache in (True, False)
    )
    if cached != plain:
        raise Wrong("generation with a cache differs from generation without one")


def _named(decision: Decision) -> str:
    parts: Sequence[tuple[str, Any]] = (
        ("without attention", decision.attention),
        ("without MLP", decision.mlp),
        ("without a block", decision.blocks),
        ("changed weights", decision.changes),
    )
    return next(name for name, value in parts if value)
