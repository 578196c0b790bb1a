"""Pruned models as ordinary checkpoints, which load without this package."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.common.files import open_as_new, private_name, remove_orphans
from pipeline.model.decoder import Decoder
from pipeline.model.dropped import Replaced, is_dropped
from pipeline.model.finite import check_values
from pipeline.model.offload import resident
from pipeline.model.sources.base import load_pretrained, restore_shipped
from pipeline.model.structure import ATTENTION, MLP
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import change_blocks, remove_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Number of tokens in the check that the checkpoint computes what the pruned model computes.
_PROBE = 32
# Differences, as a share of the largest output, that come from another order of summation.
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3, torch.float64: 1e-9}
_GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Written:
    """Facts about a checkpoint, found when it was loaded again.

    ``difference`` is that of its outputs from the pruned model's, as a share of the largest. ``blocks`` is the name of
    its block list; ``zero`` names the parameters of output projections that are zero, so their sublayer adds nothing.
    """

    difference: float
    blocks: str
    zero: tuple[str, ...]


def as_checkpoint(model: PreTrainedModel, decision: Decision) -> None:
    """Prune a dense model in place, in the form that an ordinary checkpoint can express.

    Removed blocks make the configuration smaller. A dropped sublayer stays, with its output projection (and its
    bias) zero: it adds nothing. Changed weights replace the dense ones.
    """
    decoder = Decoder(model)
    change_blocks(decoder, decision)
    for kind, layers in ((ATTENTION, decision.attention), (MLP, decision.mlp)):
        for layer in layers:
            with resident(decoder.blocks[layer], write=True):
                _silence(decoder, layer, kind)
    if decision.blocks:
        remove_blocks(decoder, decision.blocks)


@contextmanager
def put_back(model: PreTrainedModel, dropped: Sequence[Replaced]) -> Iterator[PreTrainedModel]:
    """Give a pruned model, within the block, the form that an ordinary checkpoint can express: see `as_checkpoint`.

    ``dropped`` are the modules of its dropped sublayers. Their output projections stay zero.
    """
    decoder, config = Decoder(model), model.config
    places = [(sublayer.layer, sublayer.kind) for sublayer in decoder.sublayers()]
    silent = [(layer, kind) for layer, kind in places if is_dropped(decoder, layer, kind)]
    stand_ins = [(parent, name, parent.get_submodule(name)) for parent, name, _ in dropped]
    use_cache = getattr(config, "use_cache", False)
    if all(place in silent for place in places if place[1] == ATTENTION):
        # Without any attention there was nothing to cache.
        config.use_cache = True
    try:
        for parent, name, module in dropped:
            setattr(parent, name, module)
        for layer, kind in silent:
            _silence(decoder, layer, kind)
        yield model
    finally:
        config.use_cache = use_cache
        for parent, name, module in stand_ins:
            setattr(parent, name, module)


@contextmanager
def as_loaded(decoder: Decoder) -> Iterator[None]:
    """Give weights that the model's first pass multiplied, within the block, their values from before it."""

    def multiply(power: int) -> None:
        for block, structure in zip(decoder.blocks, decoder.structure.blocks, strict=True):
            for name, factor in structure.rescaled:
                with resident(block, write=True):
                    block.get_parameter(name).data.mul_(factor**power)

    multiply(-1)
    try:
        yield
    finally:
        multiply(1)


def _silence(decoder: Decoder, layer: int, kind: str) -> None:
    """Set the output projection of a sublayer to zero, with its bias.

    Raises ValueError for a sublayer that no weights make zero.
    """
    part, block = decoder.part(layer, kind), decoder.blocks[layer]
    if not part.zero:
        raise ValueError(
            f"the {part.name} sublayer of block {layer} has no output projection that could be set to zero, so a "
            f"{decoder.model.config.model_type} model without it cannot be an ordinary checkpoint; drop blocks instead"
        )
    for name in part.zero:
        block.get_parameter(name).data.zero_()


def zero_outputs(decoder: Decoder) -> tuple[str, ...]:
    """Return the weights and biases, by name, of output projections that are all zero: their sublayer adds nothing."""
    found: list[str] = []
    for sublayer in decoder.sublayers():
        with resident(sublayer.block):
            names = sublayer.part.zero
            if names and not any(sublayer.block.get_parameter(name).any() for name in names):
                found += [decoder.structure.name_of(sublayer.layer, name) for name in names]
    return tuple(found)


@torch.inference_mode()
def probe_outputs(model: PreTrainedModel, key: str = "dtype") -> torch.Tensor:
    """Compute a model's outputs for a fixed row of tokens: logits, or final states of an encoder, (tokens, ·) float32.

    Raises ValueError, which names the ``key`` of the dtype, if they are not finite.
    """
    decoder = Decoder(model)
    ids = torch.arange(1, 1 + _PROBE).remainder(model.config.vocab_size)[None].to(decoder.device)
    output = model(ids)
    result = output.last_hidden_state if decoder.structure.encoder else output.logits
    check_values(result, f"outputs in {str(model.dtype).removeprefix('torch.')}", key)
    return result[0].float().cpu()


def write_checkpoint(
    prune: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase | None,
    target: Path,
    expected: torch.Tensor,
    describe: Callable[[Path, Written], None],
    **placement: Any,
) -> None:
    """Save the model that ``prune`` returns, and its tokenizer if there is one, under ``target``.

    The folder appears only when complete and checked: the checkpoint is loaded again (with ``placement``) and has to
    give the ``expected`` probe outputs. ``describe`` adds its files, given the folder and the facts found in it. The
    source's tokenization and generation settings (sampling, lengths, special tokens) are kept unchanged. Raises
    ValueError if outputs differ by more than rounding explains.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_orphans(target.parent, f".{target.name}.*")
    scratch = target.with_name(private_name(f".{target.name}"))
    try:
        model = prune()
        with as_loaded(Decoder(model)):
            model.save_pretrained(scratch)
        if (shipped := getattr(model, "shipped_generation", None)) is not None:
            # Not by its own method for saving, which refuses settings that many published models have.
            shipped.to_json_file(scratch / _GENERATION, use_diff=True)
        if tokenizer is not None:
            restore_shipped(tokenizer)
            tokenizer.save_pretrained(scratch)
        kind, dtype = model.config.model_type, model.dtype
        # Code that came with the model was permitted to run before, and is part of its checkpoint.
        trusted = bool(getattr(model.config, "auto_map", None))
        del model
        gc.collect()
        again = load_pretrained(str(scratch), dtype, trusted, **placement)
        found, decoder = probe_outputs(again), Decoder(again)
        difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
        if not difference <= _ROUNDING.get(dtype, 0.0):
            raise ValueError(
                f"the exported checkpoint does not compute what the pruned model computes (outputs differ by "
                f"{difference:.1%}); this kind of pruning cannot be exported for a {kind} model"
            )
        describe(scratch, Written(difference, decoder.blocks_name, zero_outputs(decoder)))
        open_as_new(scratch)
        if target.is_dir():
            target.rmdir()
        os.rename(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
