"""The in-memory model as lm-eval sees it, with the multiple-choice options of an item sharing their context."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.console import progress
from pipeline.decoder import Decoder
from pipeline.tokens import tokens_of

Request = tuple[tuple[str, str], list[int], list[int]]


@dataclass
class _Item:
    """One context and the requests (by their index) that continue it."""

    context: list[int]
    requests: list[tuple[int, list[int]]] = field(default_factory=list)


class InMemoryLM(HFLM):
    """HFLM on a loaded model. Greedy generation is the harness's own; log-likelihoods are computed here.

    The harness runs context + option anew for every option and takes the logits of every position. Here a context
    runs once, its cache is shared by its options, and logits are taken where an option token is predicted. Texts are
    tokenised once for all models with the same tokenizer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        # The harness ties weights again on a model that it is given, which would undo an edited output head.
        model.tie_weights = lambda *args, **kwargs: None
        try:
            super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal")
        finally:
            del model.tie_weights
        self._device = Decoder(model).device
        self._tokens = tokens_of(tokenizer)

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **options: Any,
    ) -> list[int]:
        encode = super().tok_encode
        ids = self._tokens.of(string, add_special_tokens, lambda: encode(string, add_special_tokens, **options))
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def encode(self, context: str, rest: Any = None, *_: Any) -> None:
        """Remember the ids that a request needs: a context with a continuation (str), or one to generate from."""
        if not isinstance(rest, str):
            self.tok_encode(context)
        elif context:
            self._encode_pair(context, rest)
        else:
            self.tok_encode(rest, add_special_tokens=False)

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [self.tok_encode(string, left_truncate_len=left_truncate_len) for string in strings]
        width = max(map(len, rows))
        padding = [[self.tokenizer.pad_token_id] * (width - len(row)) for row in rows]
        ids = [pad + row if padding_side == "left" else row + pad for pad, row in zip(padding, rows, strict=True)]
        mask = [[0] * len(pad) + [1] * len(row) for pad, row in zip(padding, rows, strict=True)]
        if padding_side != "left":
            mask = [row[::-1] for row in mask]
        return torch.tensor(ids), torch.tensor(mask)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        # The harness's bar would fill log files, which TQDM_DISABLE does not prevent.
        return super().generate_until(requests, disable_tqdm=disable_tqdm or not sys.stderr.isatty())

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if not self.model.config.use_cache:
            return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        items: dict[tuple[int, ...], _Item] = {}
        for index, (_, context, continuation) in enumerate(requests):
            room = self.max_length + 1 - len(continuation)
            context = context[-room:]
            items.setdefault(tuple(context), _Item(context)).requests.append((index, continuation))
        ordered = sorted(items.values(), key=lambda item: -len(item.context))
        batches = [ordered[i : i + self.batch_size] for i in range(0, len(ordered), self.batch_size)]
        answers: dict[int, tuple[float, bool]] = {}
        for batch in progress(batches, "multiple choice", len(batches)):
            answers |= dict(self._score(batch))
        for index, (strings, _, _) in enumerate(requests):
            if strings is not None:
                self.cache_hook.add_partial("loglikelihood", strings, answers[index])
        return [answers[index] for index in range(len(requests))]

    @torch.inference_mode()
    def _score(self, batch: list[_Item]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """(request index, (log-likelihood, is greedy)) of all continuations of a batch of contexts."""
        width = max(len(item.context) for item in batch)
        padded = [[0] * (width - len(item.context)) + item.context for item in batch]
        masked = [[0] * (width - len(item.context)) + [1] * len(item.context) for item in batch]
        mask = torch.tensor(masked, device=self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = self.model(
            torch.tensor(padded, device=self.device),
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
        first = torch.log_softmax(out.logits[:, -1].float(), -1)
        owner = [row for row, item in enumerate(batch) for _ in item.requests]
        requests = [request for item in batch for request in item.requests]
        later = self._continue(out.past_key_values, mask, positions, owner, [tokens for _, tokens in requests])
        for k, (index, tokens) in enumerate(requests):
            logp = (
                first[owner[k]].unsqueeze(0) if later is None else torch.cat([first[owner[k]].unsqueeze(0), later[k]])
            )
            target = torch.tensor(tokens, device=self.device)
            logp = logp[: len(tokens)]
            greedy = bool((logp.argmax(-1) == target).all())
            yield index, (float(logp.gather(1, target.unsqueeze(1)).sum()), greedy)

    def _continue(
        self, cache: Any, mask: torch.Tensor, positions: torch.Tensor, owner: list[int], tokens: list[list[int]]
    ) -> torch.Tensor | None:
        """Log-probabilities (R, T - 1, V) after each continuation token but the last; None if all are one token."""
        longest = max(map(len, tokens)) - 1
        if longest == 0:
            return None
        rows = torch.tensor(owner, device=self.device)
        cache.batch_select_indices(rows)
        inputs = torch.tensor([(row[:-1] + [0] * longest)[:longest] for row in tokens], device=self.device)
        steps = torch.arange(1, longest + 1, device=self.device)
        out = self.model(
            inputs,
            attention_mask=torch.cat([mask[rows], mask.new_ones(len(rows), longest)], 1),
            position_ids=positions[rows, -1:] + steps,
            past_key_values=cache,
            use_cache=True,
        )
        return torch.log_softmax(out.logits.float(), -1)
