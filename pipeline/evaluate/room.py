"""Whether the passes of an evaluation fit into memory, found out before they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.evaluate.batch_size import bytes_per_token
from pipeline.evaluate.perplexity import WINDOWS
from pipeline.model.activations import free_memory, memory_budget
from pipeline.model.decoder import Decoder
from pipeline.model.memory import Need, in_gib, pass_bytes, skeleton_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pipeline.evaluate.perplexity import HeldOutText


def check_room(model: PreTrainedModel, size: int, longest: int) -> None:
    """Raise ValueError if a pass of ``size`` requests of up to ``longest`` tokens does not fit into free memory.

    Passes that are small by an estimate are not counted.
    """
    device = Decoder(model).device
    if size * longest * bytes_per_token(model) < memory_budget(device):
        return
    needed, free = needed_bytes(model, size, longest), free_memory(device)
    if needed > free:
        fitting = size * free // needed
        way = f"task.batch_size={fitting}" if fitting else "dtype=bfloat16, fewer task.shots, or a machine with more"
        raise ValueError(
            f"a pass of {size} requests of up to {longest} tokens needs {in_gib(needed)} beside the model, but "
            f"{in_gib(free)} are free; give {way}"
        )


def needed_bytes(model: PreTrainedModel, size: int, longest: int) -> int:
    """Count the bytes of a pass over ``size`` rows of ``longest`` tokens, with logits of all of them and a cache."""
    return pass_bytes(skeleton_of(model.config, model.dtype), size, longest, cached=Decoder(model).uses_cache)


def asking(model: PreTrainedModel, size: int, longest: int) -> Need:
    """Count the same of a `skeleton_of` a model."""
    return Need(pass_bytes(model, size, longest, cached=bool(getattr(model.config, "use_cache", False))))


def reading(model: PreTrainedModel, text: HeldOutText) -> Need:
    """Count what the passes over held-out text take; ``model`` is a `skeleton_of` the one that is evaluated."""
    several = pass_bytes(model, WINDOWS, text.window, masked=False, logits_to_keep=text.stride + 1)
    return Need(max(several, pass_bytes(model, 1, text.window, logits_to_keep=text.window)))
