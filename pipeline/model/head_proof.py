"""The output head of a loaded model, and the proof that computing with it gives what the model computes.

A configuration may scale states, updates or logits in ways that the views of ``pipeline.model.decoder`` do not know.
All weights would fit, yet every measure would describe another model; one short forward pass decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from weakref import WeakSet

import torch
from torch import nn
from transformers import PreTrainedModel

from pipeline.model.architectures import SUBLAYERS
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.offload import is_offloaded, resident
from pipeline.model.residual import first, stream

# Number of tokens in the forward pass of the proof.
_TOKENS = 8
# Largest relative differences that come from rounding and from another order of summation.
_ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 4e-3}
# Configuration fields of the various families for such scales, and the values that change nothing.
_SCALES = (
    *("logits_scaling", "logit_scale", "lm_head_multiplier", "final_logit_softcapping", "residual_multiplier"),
    *("embedding_multiplier", "attention_multiplier", "mup_width_multiplier", "scale_depth", "dim_model_base"),
)
_NEUTRAL = (None, 0, 1)
_proven: WeakSet[nn.Module] = WeakSet()


def head_of(decoder: Decoder, dtype: torch.dtype | None = None) -> Head:
    """Return the map from a model's final states to its logits, in the model's own dtype or another.

    It shares the model's weights where they are in memory in that dtype. Raises ValueError as `prove` does.
    """
    prove(decoder.model)
    with resident(decoder.head):
        bias = None if decoder.head.bias is None else decoder.head.bias.detach()
        weight = decoder.head.weight.detach()
        head = Head(weight, bias, decoder.logit_cap).to(dtype or weight.dtype)
        # Offloaded weights are in memory only within this context, so they are copied.
        return replace(head, weight=head.weight.clone()) if is_offloaded(decoder.model) else head


@torch.inference_mode()
def prove(model: PreTrainedModel) -> None:
    """Compare a model's logits and residual stream with those of its `Decoder` on a few tokens, once.

    Encoders and models that are not entirely in memory are skipped. Raises ValueError if the two differ, naming the
    fields of the configuration, and for logits that are not finite.
    """
    decoder = Decoder(model)
    if model in _proven or decoder.architecture.encoder or is_offloaded(model):
        return
    parts = _Parts(decoder)
    ids = torch.arange(1, 1 + _TOKENS).remainder(model.config.vocab_size)[None].to(decoder.device)
    with parts:
        logits = model(ids, use_cache=False).logits
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"the model computes NaN or infinity in {str(model.dtype).removeprefix('torch.')}: its results would be "
            "meaningless. Load it in another dtype (dtype=float32)"
        )
    for error, wrong in parts.errors(logits):
        if not error <= _ROUNDING.get(model.dtype, 0.0):
            raise ValueError(_refusal(model, error, wrong))
    _proven.add(model)


class _Parts:
    """Records the updates of sublayers and the inputs and outputs of blocks in one forward pass within the context."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._updates: dict[tuple[int, str], torch.Tensor] = {}
        self._inputs: dict[int, torch.Tensor] = {}
        self._outputs: dict[int, torch.Tensor] = {}

    def __enter__(self) -> None:
        self._stack = ExitStack()
        for sublayer in self._decoder.sublayers():
            key = sublayer.layer, sublayer.kind
            self._stack.callback(
                sublayer.exit.register_forward_hook(
                    lambda module, args, output, key=key: self._updates.update({key: first(output)})
                ).remove
            )
        for at, block in enumerate(self._decoder.blocks):
            self._stack.callback(
                block.register_forward_hook(
                    lambda module, args, kwargs, output, at=at: self._keep(at, stream(args, kwargs), first(output)),
                    with_kwargs=True,
                ).remove
            )

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _keep(self, at: int, before: torch.Tensor, after: torch.Tensor) -> None:
        self._inputs[at], self._outputs[at] = before, after

    def errors(self, logits: torch.Tensor) -> Iterator[tuple[float, str]]:
        """Yield the error of each view, relative to its terms or logits, and the message to give if it is large."""
        for at, before in self._inputs.items():
            updates = [_shaped(self._updates[at, kind], before) for kind in SUBLAYERS]
            terms = [before.double(), *updates, self._outputs[at].double()]
            # A block may cancel most of the stream, so rounding is relative to the largest term.
            off = (terms[0] + terms[1] + terms[2] - terms[3]).norm()
            largest = max(1e-30, *(float(term.norm()) for term in terms))
            yield (
                float(off) / largest,
                f"does not add the outputs of block {at}'s sublayers to the residual stream unscaled",
            )
        expected = logits.double()
        off = (self.logits().to(expected) - expected).norm() / expected.norm().clamp(min=1e-30)
        yield float(off), "does not compute its logits by applying its output projection to the final state"

    def logits(self) -> torch.Tensor:
        decoder = self._decoder
        x, norm = self._outputs[len(decoder.blocks) - 1], decoder.final_norm
        states = x if norm is None else norm(x)
        bias = None if decoder.head.bias is None else decoder.head.bias.detach()
        head = Head(decoder.head.weight.detach(), bias, decoder.logit_cap)
        return head.logits(states[0].to(head.weight))[None]


def _shaped(update: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return an update as float64 in the shape of ``before``: some blocks (OPT) flatten batch and tokens.

    The update of a dropped sublayer is a single zero and stays one.
    """
    return (update.view_as(before) if update.numel() == before.numel() else update).double()


def _refusal(model: PreTrainedModel, error: float, wrong: str) -> str:
    config = model.config
    scales = [f"{name}={value}" for name in _SCALES if (value := getattr(config, name, None)) not in _NEUTRAL]
    cause = f"sets {', '.join(scales)}" if scales else f"sets none of {', '.join(_SCALES)}"
    return (
        f"this {config.model_type} model {wrong} (off by {error:.1%}; its config.json {cause}): measurements would not "
        "describe this model; give a model without such scales"
    )
