"""Whether a model continues text as it reads it, and how it is made to.

The library counts positions for ``generate`` from 0, where some models count them from behind their padding token, and
some classes add a token of their own. The tokens would then not be chosen by the states that reading them gives.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from pipeline.model.decoder import Decoder
from pipeline.model.finite import is_finite
from pipeline.model.positions import Positions
from pipeline.model.short_pass import TOKENS, evaluating, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
# Largest relative differences that come from rounding and from another order of summation.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 4e-3}
_HALF = (torch.bfloat16, torch.float16)
# How many times that, where other operators compute the same.
_REORDERED = 20
# Tokens to continue by: the second follows one that was chosen.
_NEW = 2
# Tokens of a longer text: the tokens that are attended to, and by which weight, may depend on how many there are.
_LONG = 3 * TOKENS
# How many times what a unit in the last place of every embedding changes: rounding errors of all blocks add up.
_UNITS = 10
_found: WeakKeyDictionary[nn.Module, AsRead] = WeakKeyDictionary()
_levels: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


@dataclass(frozen=True)
class AsRead:
    """How a model continues text, compared with forward passes over it.

    ``generate`` says that the library's method chooses tokens by the logits of a forward pass over the text so far;
    ``alone`` that these logits stay what they are when more tokens follow, and ``padded`` when masked tokens precede.
    """

    generate: bool
    alone: bool
    padded: bool

    @property
    def batched(self) -> bool:
        """Whether rows of several lengths, padded in front, are continued as each alone."""
        return self.alone and self.padded


def as_read(model: PreTrainedModel) -> AsRead:
    """Return how a model continues text, tried once on a few tokens without a cache."""
    if model not in _found:
        _found[model] = _tried(model)
    return _found[model]


def check_alone(model: PreTrainedModel) -> None:
    """Raise ValueError for a model of which no single pass gives the states that choose its tokens."""
    if not as_read(model).alone:
        raise ValueError(
            f"a {model.config.model_type} model predicts a token differently once others follow, so the states of a "
            "text are not those that chose its tokens; leave out capturing (stages=[prune,evaluate]), and pruners that "
            "compare predictions"
        )


@torch.inference_mode()
def _tried(model: PreTrainedModel) -> AsRead:
    ids = tokens(model).to(Decoder(model).device)
    longer = long_tokens(model)
    with evaluating(model):
        whole = model(longer, use_cache=False).logits
        if not is_finite(whole):
            # Nothing can be compared; whoever uses such logits says so.
            return AsRead(True, True, True)
        ends = (TOKENS - 1, 2 * longer.shape[1] // 3)
        # Together: in half precision most tokens of both have to agree.
        found = torch.cat([whole[0, :end] for end in ends])
        expected = torch.cat([model(longer[:, :end], use_cache=False).logits[0] for end in ends])
        return AsRead(
            generate=_generates(model, ids),
            alone=alike(found, expected, rounding_level(model)),
            padded=_pads(model, long_tokens(model, _NEW)),
        )


def long_tokens(model: PreTrainedModel, new: int = 0, others: int = 0) -> torch.Tensor:
    """Return longer token ids (1 + others, tokens) than those of the proof, if a model can read them and ``new`` more.

    They are no longer than what is computed in the same way.
    """
    length = min(_LONG, Positions.of(model).reach(TOKENS) - new)
    return tokens(model, others, max(TOKENS, int(length))).to(Decoder(model).device)


def _generates(model: PreTrainedModel, ids: torch.Tensor) -> bool:
    """Return whether the library chooses the tokens after ``ids`` by the logits of forward passes."""
    mask = torch.ones_like(ids)
    try:
        written = _written(model, ids, mask, use_cache=False)
        for step, logits in enumerate(written.logits):
            text = written.sequences[:, : ids.shape[1] + step]
            read = model(text, use_cache=False).logits[:, -1]
            # With the same mask, the same computation: nothing but another position makes a difference.
            same = model(text, attention_mask=torch.ones_like(text), use_cache=False).logits[:, -1]
            level = rounding_level(model)
            if not (_near(logits, same, level=level) and _near(same, read, _REORDERED, level)):
                return False
    except Exception as error:
        log.debug("no generation by the library: %s", error)
        return False
    return True


def _pads(model: PreTrainedModel, ids: torch.Tensor) -> bool:
    """Return whether the library continues ``ids`` padded in front, beside a longer row, as a forward pass does."""
    padding = ids.shape[1] // 3
    rows = torch.cat([ids, ids.roll(padding, 1)])
    mask = torch.ones_like(rows)
    rows[1, :padding] = mask[1, :padding] = 0
    try:
        written = _written(model, rows, mask, use_cache=Decoder(model).uses_cache)
        for step, logits in enumerate(written.logits):
            text = written.sequences[1:, padding : ids.shape[1] + step]
            read = model(text, use_cache=False).logits[:, -1]
            if not _near(logits[1:], read, _REORDERED, rounding_level(model)):
                return False
    except Exception as error:
        log.debug("no generation of a batch by the library: %s", error)
        return False
    return True


def _written(model: PreTrainedModel, rows: torch.Tensor, mask: torch.Tensor, use_cache: bool) -> Any:
    """Return what the library generates: ``sequences``, and the ``logits`` by which it chose each new token."""
    # Deferred: a job that finds its results loads no model.
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=_NEW, do_sample=False, use_cache=use_cache, output_logits=True, return_dict_in_generate=True,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    return model.generate(rows, attention_mask=mask, generation_config=settings)


def rounding_level(model: PreTrainedModel) -> float:
    """Return how far a unit in the last place of every embedding moves a logit, relative to the largest logit.

    It is measured once; a pruned model may amplify it a hundred times as much as the dense one. In half precision it is
    taken to be 0: there it may change the logits by as much as their size.
    """
    if model not in _levels:
        _levels[model] = _level(model)
    return _levels[model]


def forget_rounding(model: PreTrainedModel) -> None:
    """Let `rounding_level` measure a model again that was changed in place."""
    _levels.pop(model, None)


@torch.inference_mode()
def _level(model: PreTrainedModel) -> float:
    embeddings, ids = model.get_input_embeddings(), long_tokens(model)
    if model.dtype in _HALF or not isinstance(embeddings, nn.Module):
        return 0.0

    def moved(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        numbers = torch.Generator().manual_seed(0)
        units = torch.rand(output.shape, generator=numbers, dtype=output.dtype).to(output.device) * 2 - 1
        return output * (1 + torch.finfo(output.dtype).eps * units)

    with evaluating(model):
        expected = model(ids, use_cache=False).logits[0]
        hook = embeddings.register_forward_hook(moved)
        try:
            found = model(ids, use_cache=False).logits[0]
        finally:
            hook.remove()
    level = ((found - expected).abs().amax(-1) / expected.abs().amax(-1)).max()
    return float(level) if level.isfinite() else 0.0


def alike(found: torch.Tensor, expected: torch.Tensor, level: float = 0.0) -> bool:
    """Return whether the logits (T, V) of two passes are the same; in half precision, those of most tokens.

    There, rounding may send a token to another expert. ``expected`` has the model's dtype; those of ``found`` may come
    from the library, in float32. ``level`` is that of `rounding_level`.
    """
    near = [_near(one, other, _REORDERED, level) for one, other in zip(found, expected, strict=True)]
    return 2 * sum(near) > len(near) if expected.dtype in _HALF else all(near)


def _near(found: torch.Tensor, expected: torch.Tensor, times: float = 1.0, level: float = 0.0) -> bool:
    # The library gives logits in float32 at most.
    near = max(times * max(ROUNDING.get(expected.dtype, 0.0), ROUNDING[torch.float32]), _UNITS * level)
    return bool((found.to(expected) - expected).abs().max() <= near * expected.abs().max())


@contextmanager
def reading_whole(model: PreTrainedModel) -> Iterator[None]:
    """Let ``generate`` choose each token by a forward pass over the whole text, given nothing but its token ids.

    There must be no padding before the text. No cache is used.
    """

    def prepare(input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        return {"input_ids": input_ids, "use_cache": False}

    model.prepare_inputs_for_generation = prepare
    try:
        yield
    finally:
        del model.prepare_inputs_for_generation
