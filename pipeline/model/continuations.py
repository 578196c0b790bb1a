"""Calibration text as a trajectory: the dense model's predictions, for a pruner to compare with.

Sequences are sorted by length, so passes over them need little padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pipeline.config.probes import Probe, encode
from pipeline.model.as_read import check_alone
from pipeline.model.finite import check_values
from pipeline.model.generation import Decoding, generate
from pipeline.model.positions import Positions
from pipeline.model.trajectory import BATCH, Trajectory, forwards

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@torch.inference_mode()
def continued(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], steps: int, chat: bool = False
) -> Trajectory:
    """Continue prompts greedily by at most ``steps`` tokens each; return the states that predict these tokens.

    ``chat`` puts the prompts into the chat format of the tokenizer, if it has one. Raises ValueError as `check_alone`.
    """
    check_alone(model)
    encoded = (encode(Probe("", text, "open"), tokenizer) if chat else tokenizer(text).input_ids for text in prompts)
    asked = sorted(encoded, key=len)
    batches = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
    tokens = [row for batch in batches for row in generate(model, tokenizer, batch, [steps] * len(batch), Decoding())]
    return _with_states(model, asked, tokens)


@torch.inference_mode()
def read(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> Trajectory:
    """Return the states that predict given text instead of generated text: all tokens of a sequence but the first."""
    return _with_states(model, [list(row[:1]) for row in sequences], [list(row[1:]) for row in sequences])


def _with_states(model: PreTrainedModel, prompts: list[list[int]], tokens: list[list[int]]) -> Trajectory:
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]) + len(tokens[row]))
    trajectory = Trajectory(
        ends=Positions.of(model).ends,
        names=[f"text-{row}" for row in order],
        steps=max(map(len, tokens)),
        prompts=[prompts[row] for row in order],
        tokens=[tokens[row] for row in order],
        texts=[[] for _ in order],
        final=torch.empty(0),
        residual=None,
    )
    final = torch.cat([part.at_predictions(part.run(model)) for part in forwards(trajectory, tight=True)])
    check_values(final, "states of the calibration text")
    return replace(trajectory, final=final)
