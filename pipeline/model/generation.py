"""Continuations of prompts: greedy or sampled, each up to its end-of-text token or its maximum length."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pipeline.model.as_read import as_read, reading_whole
from pipeline.model.decoder import Decoder
from pipeline.model.finite import checked_logits
from pipeline.model.positions import Positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

GREEDY, SAMPLE = "greedy", "sample"


@dataclass(frozen=True)
class Decoding:
    """Choice of the next token: the likeliest, or a draw from ``softmax(z / temperature)`` with a seed."""

    kind: str = GREEDY
    temperature: float = 1.0
    seed: int = 0


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    decoding: Decoding,
    key: str = "dtype",
) -> list[list[int]]:
    """Generate continuations of token ids, at most ``lengths[i]`` tokens each, cut after the end-of-text token.

    Sampling draws from the whole vocabulary and starts from the seed at every call: equal models sample equal texts.
    The caller's random state is left unchanged. Raises ValueError if the model has too few positions, or if its logits
    are not finite; the latter error names the ``key`` to change.
    """
    # Deferred: a job that finds its results loads no model.
    from transformers import GenerationConfig

    decoder = Decoder(model)
    longest = max(len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True))
    if decoder.positions is not None and longest > decoder.positions:
        raise ValueError(
            f"a prompt with its continuation may have {longest} tokens, but the model has {decoder.positions} "
            "positions; give shorter prompts, or generate fewer tokens (capture.steps, calibration.length)"
        )
    ends = end_tokens(model, tokenizer)
    sampling = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0, "top_p": 1.0}
    settings = GenerationConfig(
        repetition_penalty=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=ends,
        **(sampling if decoding.kind == SAMPLE else {"do_sample": False}),
    )
    with torch.random.fork_rng(devices=[decoder.device] if decoder.device.type == "cuda" else []):
        torch.manual_seed(decoding.seed)
        rows = continue_rows(model, prompts, lengths, tokenizer.pad_token_id, key=key, generation_config=settings)
    return [
        row[: min(length, next((t + 1 for t, token in enumerate(row) if token in ends), len(row)))]
        for row, length in zip(rows, lengths, strict=True)
    ]


def continue_rows(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    lengths: Sequence[int],
    pad_token_id: int,
    stops: Callable[[int, int], StoppingCriteriaList] | None = None,
    key: str = "dtype",
    **settings: Any,
) -> list[list[int]]:
    """Generate new tokens for each row until it stops, at most as many as the longest of the ``lengths``.

    The caller cuts the tokens beyond a row's own length or end. ``settings`` go to ``model.generate``; ``stops(T, B)``
    makes the stopping criteria for B rows that begin with T tokens. Rows are batched where that changes nothing: see
    ``pipeline.model.positions``. Each token is chosen by the logits that a forward pass over the text so far gives:
    see ``pipeline.model.as_read``. Raises ValueError that names ``key`` for logits that are not finite.
    """
    plain = as_read(model).generate
    found: list[list[int]] = [[]] * len(rows)
    for places, steps, cached in _together(model, rows, lengths):
        width = max(len(rows[place]) for place in places)
        padding = [width - len(rows[place]) for place in places]
        ids = [[pad_token_id] * pad + list(rows[place]) for place, pad in zip(places, padding, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in padding]
        device = Decoder(model).device
        with checked_logits(model, key), nullcontext() if plain else reading_whole(model):
            whole = model.generate(
                torch.tensor(ids, device=device),
                # Some models (xLSTM) take no mask; without padding none is needed.
                **({"attention_mask": torch.tensor(mask, device=device)} if plain else {}),
                stopping_criteria=None if stops is None else stops(width, len(places)),
                **with_more(
                    settings,
                    max_new_tokens=steps,
                    pad_token_id=pad_token_id,
                    use_cache=cached and plain and Decoder(model).uses_cache,
                ),
            )
        for place, row in zip(places, whole[:, width:].tolist(), strict=True):
            found[place] = row
    return found


def with_more(settings: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return settings of generation with some more, which belong into a configuration if that is what is given."""
    if "generation_config" not in settings:
        return {**settings, **more}
    config = copy.deepcopy(settings["generation_config"])
    config.update(**more)
    return {**settings, "generation_config": config}


def _together(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], lengths: Sequence[int]
) -> Iterator[tuple[list[int], int, bool]]:
    """Yield the indices of rows to batch, the number of tokens that each gets, and whether a cache is valid for them.

    A row that would be computed differently at the length of the others goes alone. If it outgrows
    its own reach as well, a cache would keep states that were computed in the earlier way.
    """
    positions, how = Positions.of(model), as_read(model)
    equal = not (how.generate and how.batched)
    groups: dict[tuple[float, int], list[int]] = {}
    alone = []
    for place, row in enumerate(rows):
        reach = positions.reach(len(row))
        together = positions.reach(len(row) + max(lengths) - 1) == reach
        groups.setdefault((reach, len(row) if equal else 0), []).append(place) if together else alone.append(place)
    for places in groups.values():
        yield places, max(lengths), True
    for place in alone:
        last = len(rows[place]) + lengths[place] - 1
        yield [place], lengths[place], positions.reach(last) == positions.reach(len(rows[place]))


def pieces(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text that each token adds; joined, these are the text of all tokens.

    A character whose bytes are spread over several tokens comes with the last of them.
    """
    texts, done = [], ""
    for end in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:end])
        if text.endswith("\ufffd") and end < len(tokens):
            texts.append("")
            continue
        texts.append(text[len(done) :])
        done = text
    return texts


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the tokens that end a text, by the model's generation settings and by the tokenizer."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*ends, tokenizer.eos_token_id] if token is not None})
