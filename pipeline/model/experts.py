"""Mixtures of experts, computed so that every expert's products can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def one_expert_at_a_time(model: PreTrainedModel) -> Iterator[None]:
    """Let mixtures multiply expert by expert within the block: no other form shows the input of each expert."""
    config = model.config.get_text_config()
    before = getattr(config, "_experts_implementation", None)
    if before is None:
        yield
        return
    config._experts_implementation = "eager"
    try:
        yield
    finally:
        config._experts_implementation = before
