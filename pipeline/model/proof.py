"""The proof that a model computes what its structure says: states, updates and logits of one short forward pass.

A configuration may scale states, updates or logits in ways that were not seen. All weights would fit, yet every
measure would describe another model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from pipeline.model.as_read import ROUNDING, alike, as_read, long_tokens, rounding_level
from pipeline.model.block_form import Unfit
from pipeline.model.decoder import Decoder
from pipeline.model.dropped import drop, is_dropped
from pipeline.model.head import Head
from pipeline.model.nested import first
from pipeline.model.offload import is_offloaded, resident
from pipeline.model.short_pass import evaluating, stream_of, tokens
from pipeline.model.visits import Unvisited, unvisited

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
# Tokens to generate with a cache and without one: where each token attends to a few others, the first may be alike.
_WRITTEN = 4
_proven: WeakKeyDictionary[nn.Module, Unvisited] = WeakKeyDictionary()


def head_of(decoder: Decoder, dtype: torch.dtype | None = None) -> Head:
    """Return the map from a model's final states to its logits, in the model's own dtype or another.

    It shares the model's weights where they are in memory in that dtype. Raises ValueError as `prove` does.
    """
    prove(decoder.model)
    with resident(decoder.head):
        found = _head(decoder)
        head = found.to(dtype or found.weight.dtype)
        # Offloaded weights are in memory only within this context, so they are copied.
        return replace(head, weight=head.weight.clone()) if is_offloaded(decoder.model) else head


def _head(decoder: Decoder) -> Head:
    bias = None if decoder.head.bias is None else decoder.head.bias.detach()
    structure = decoder.structure
    return Head(decoder.head.weight.detach(), bias, structure.head_cap, structure.head_scale)


@torch.inference_mode()
def prove(model: PreTrainedModel) -> Unvisited:
    """Compare a model's logits and residual stream with those of its `Decoder` on a few tokens, once.

    Returns the experts that none of these tokens visits, of which the proof says nothing, by block: see `unvisited`.
    Encoders' logits are skipped, and models that are not entirely in memory. Raises Unfit if the two differ, saying
    which equation failed where, and ValueError for logits that are not finite.
    """
    decoder = Decoder(model)
    if model in _proven or is_offloaded(model):
        return _proven.get(model, {})
    for error, equation in equations(decoder):
        check(model, error, equation)
    if not decoder.structure.encoder:
        _prove_continuing(decoder)
    _proven[model] = found = unvisited(decoder)
    return found


def check(model: PreTrainedModel, error: float, equation: str) -> None:
    """Raise Unfit if an equation is further off than rounding in the model's dtype explains."""
    if not error <= ROUNDING.get(model.dtype, 0.0):
        raise Unfit(
            f"a {model.config.model_type} model cannot be pruned here: {equation} does not hold (off by {error:.1%}), "
            "so measurements would not describe this model"
        )


def _prove_continuing(decoder: Decoder) -> None:
    """Say how a model continues text if that is not how it reads it, and let it use no cache that is wrong."""
    kind, found = decoder.model.config.model_type, as_read(decoder.model)
    if not found.alone:
        log.warning(
            "a %s model predicts a token differently once others follow: its generated text is not captured, and "
            "states and scores of a text depend on where it ends",
            kind,
        )
    if not found.generate:
        log.warning(
            "generate() of a %s model computes something else than its forward pass: each token is chosen by a "
            "forward pass over the whole text instead, which is slower",
            kind,
        )
    if decoder.uses_cache and not caches_well(decoder):
        log.warning("a %s model writes another text with a cache than without one: using none", kind)
        decoder.model.config.use_cache = False


def caches_well(decoder: Decoder) -> bool:
    """Return whether few tokens, and more, are continued alike with a cache and without one."""
    # Two rows, since a cache may mix up the rows of a batch (RWKV).
    texts = (tokens(decoder.model, others=1).to(decoder.device), long_tokens(decoder.model, _WRITTEN, others=1))
    found, expected = [], []
    for ids in texts:
        if (cached := _continued(decoder.model, ids, True)) is None:
            return False
        if (whole := _continued(decoder.model, ids, False)) is None:
            return True  # nothing to compare with
        for row, steps in enumerate(_comparable(cached.sequences, whole.sequences, ids.shape[1])):
            found += [logits[row] for logits in cached.logits[1:steps]]
            expected += [logits[row] for logits in whole.logits[1:steps]]
    level = rounding_level(decoder.model)
    return alike(torch.stack(found), torch.stack(expected).to(decoder.model.dtype), level)


def _continued(model: PreTrainedModel, ids: torch.Tensor, cached: bool) -> Any:
    """Return what the library generates after rows (B, T), with a cache or without; None if it cannot."""
    # Deferred: a job that finds its results loads no model.
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=_WRITTEN, do_sample=False, use_cache=cached, output_logits=True, return_dict_in_generate=True,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    try:
        with evaluating(model):
            return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    except Exception as error:
        log.debug("no generation with use_cache=%s: %s", cached, error)
        return None


def _comparable(found: torch.Tensor, expected: torch.Tensor, start: int) -> list[int]:
    """Return for each row (B, T) how many new tokens come from equal texts; the first, read without a cache, always.

    Rounding in half precision decides between equally likely tokens, and the texts go on differently.
    """
    differ = (found[:, start:] != expected[:, start:]).int()
    return [max(2, int(row.argmax()) + 1) if row.any() else len(row) for row in differ]


def equations(decoder: Decoder) -> Iterator[tuple[float, str]]:
    """Yield the relative error of each equation on one forward pass, and the equation in words."""
    seen = _Seen(decoder)
    model = decoder.model
    with seen, torch.inference_mode(), evaluating(model):
        out = model(tokens(model).to(decoder.device), use_cache=False)[0]
    if not torch.isfinite(out).all():
        raise ValueError(
            f"the model computes NaN or infinity in {str(model.dtype).removeprefix('torch.')}: its results would be "
            "meaningless. Load it in another dtype (dtype=float32)"
        )
    for layer in range(len(decoder.blocks)):
        yield from seen.sums(layer)
        if layer:
            given = decoder.passed_on(layer - 1, seen.outputs[layer - 1])
            terms = [given.double(), seen.inputs[layer].double()]
            yield _error(terms), f"input of block {layer} = output of block {layer - 1}"
    if not decoder.structure.encoder:
        norm, x = decoder.final_norm, decoder.by_token(seen.outputs[len(decoder.blocks) - 1])
        with torch.inference_mode():
            states = x if norm is None else norm(x)
            head = _head(decoder)
            logits = head.logits(states[0].to(head.weight)).double()
        expected = out[0].double().to(logits)
        off = (logits - expected).norm() / expected.norm().clamp(min=1e-30)
        yield float(off), "logits = output projection of the final state"


@torch.inference_mode()
def drops(decoder: Decoder) -> Iterator[tuple[float, str]]:
    """Yield the error of every sublayer's removal: the block without it against the sum of what is left.

    Each block runs again on the arguments that it got in one forward pass.
    """
    seen = _Seen(decoder)
    with seen:
        decoder.model(tokens(decoder.model).to(decoder.device), use_cache=False)
    for sublayer in decoder.sublayers():
        if is_dropped(decoder, sublayer.layer, sublayer.kind):
            continue
        replaced = drop(decoder, sublayer.layer, sublayer.kind)
        again = _Seen(decoder, [sublayer.layer])
        try:
            args, kwargs = seen.arguments[sublayer.layer]
            with again:
                sublayer.block(*args, **kwargs)
        finally:
            for parent, name, module in replaced:
                setattr(parent, name, module)
        name = f"without its {sublayer.part.name}"
        if any(again.updates[sublayer.layer, sublayer.kind].flatten().tolist()):
            yield float("inf"), f"block {sublayer.layer} {name}: update = 0"
        yield from ((error, f"{equation} {name}") for error, equation in again.sums(sublayer.layer))


@dataclass
class _Seen:
    """Records updates, norms on the stream, inputs and outputs of blocks, in one pass within the context."""

    decoder: Decoder
    layers: list[int] = field(default_factory=list)
    updates: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict)
    inputs: dict[int, torch.Tensor] = field(default_factory=dict)
    outputs: dict[int, torch.Tensor] = field(default_factory=dict)
    arguments: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    norms: dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def __enter__(self) -> None:
        self._stack = ExitStack()
        decoder, wanted = self.decoder, self.layers or range(len(self.decoder.blocks))
        for sublayer in decoder.sublayers():
            if sublayer.layer in wanted:
                place = sublayer.layer, sublayer.kind
                self._stack.enter_context(sublayer.watched(partial(self._keep_update, place)))
        for at in wanted:
            block = decoder.blocks[at]
            for name in decoder.structure.blocks[at].norms:
                hook = block.get_submodule(name).register_forward_hook(partial(self._keep_norm, (at, name)))
                self._stack.callback(hook.remove)
            hook = block.register_forward_hook(partial(self._keep, at), with_kwargs=True)
            self._stack.callback(hook.remove)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _keep_update(self, place: tuple[int, str], update: torch.Tensor) -> None:
        # Some blocks (Falcon) add to an update in place.
        self.updates[place] = update.clone()

    def _keep_norm(self, place: tuple[int, str], module: nn.Module, args: Any, output: torch.Tensor) -> None:
        # One that is applied again closes the sum that it got first.
        self.norms[place] = self.norms.get(place, args)[0], output

    def _keep(self, at: int, block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.arguments[at] = args, kwargs
        # What comes behind a block may change its output in place.
        self.inputs[at], self.outputs[at] = stream_of(args, kwargs).clone(), first(output).clone()

    def sums(self, layer: int) -> Iterator[tuple[float, str]]:
        """Yield the errors of the sums of a block: what its norms on the stream get, and its output."""
        structure = self.decoder.structure.blocks[layer]
        terms = [self.inputs[layer].double()]
        if structure.opening:
            _, x = self.norms[layer, structure.opening]
            terms = [x.double()]
        for number, part in enumerate(structure.parts):
            if not number or structure.parts[number - 1].closing != part.closing:
                terms = [part.carry * term for term in terms]
            terms.append(_shaped(self.updates[layer, part.kind], terms[0]))
            following = structure.parts[number + 1] if number + 1 < len(structure.parts) else None
            if part.closing and (following is None or following.closing != part.closing):
                before, after = self.norms[layer, part.closing]
                yield _error([*terms, before.double()]), f"block {layer}: input of {part.closing} = x + f(x)"
                terms = [after.double()]
        terms = [structure.factor * term for term in terms]
        yield _error([*terms, self.outputs[layer].double()]), f"block {layer}: output = x + sum of scale × update"


def _error(terms: list[torch.Tensor]) -> float:
    """Return how far the sum of all terms but the last is from the last, relative to the largest of them.

    A block may cancel most of the stream, so rounding is relative to the largest term.
    """
    off = (torch.stack([term.expand_as(terms[0]) for term in terms[:-1]]).sum(0) - terms[-1].view_as(terms[0])).norm()
    return float(off) / max(1e-30, *(float(term.norm()) for term in terms))


def _shaped(update: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return an update as float64 in the shape of ``before``: some blocks (OPT) flatten batch and tokens."""
    return update.double().view_as(before)
