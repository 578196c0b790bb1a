"""The in-memory model as a model of lm-eval: the harness's prompts and texts, our forward passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.models.utils_hf import stop_sequences_criteria

from pipeline.common.terminal import advancing
from pipeline.evaluate.answer import Answer
from pipeline.evaluate.likelihoods import log_likelihoods
from pipeline.evaluate.room import check_room
from pipeline.evaluate.rounding import rounding
from pipeline.evaluate.written import Written, ended
from pipeline.model.beams import best_beams
from pipeline.model.continuous import Until, continue_many
from pipeline.model.decoder import Decoder
from pipeline.model.generation import end_tokens
from pipeline.model.tokens import tokens_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Texts of a context and its continuation (None where a whole text is read window by window), and their token ids.
Request = tuple[tuple[str, str] | None, list[int], list[int]]


class _Prompt(NamedTuple):
    """Prompt to continue: its token ids, the texts that end the answer, and the most tokens that it may have."""

    row: tuple[int, ...]
    stops: tuple[str, ...]
    limit: int


class InMemoryLM(HFLM):
    """HFLM on a loaded model: the harness prepares and cuts the requests, the forward passes run here.

    HFLM would run context + option anew for every option and take the logits of every position; this class uses
    ``pipeline.evaluate.likelihoods`` instead. Texts are tokenised once for all models with the same tokenizer.
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
        self._advance: Callable[[int], object] = lambda rows: None
        self.rows = batch_size
        # What was written, by task and number of the document: one text a repetition.
        self.written: dict[tuple[str, int], list[Written]] = {}
        self._texts: dict[_Prompt, list[list[int]]] = {}
        # The number of each request among the copies of it, by what it asks, in the order of the requests.
        self._copies: dict[_Prompt, list[int]] = {}
        # Greedy texts of the requests at hand, before the harness asks for them.
        self._greedy: dict[_Prompt, list[int]] = {}
        # How far rounding moved log-likelihoods, in nats, of what was asked so far.
        self.rounding = 0.0

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
        """Tokenise a request for later use: a context with a continuation (str), or a context to generate from."""
        if isinstance(rest, str):
            self.encode_pair(context, rest)
        else:
            self.tok_encode(context)

    def length(self, context: str, rest: Any = None, *_: Any) -> int:
        """Return how many tokens a request needs at most: of its context and answer, or of a whole text's window."""
        if isinstance(rest, str):
            return min(self.max_length, sum(map(len, self.encode_pair(context, rest))))
        written = normalize_gen_kwargs(rest, self.max_gen_toks)["max_gen_toks"] if isinstance(rest, dict) else 0
        return min(self.max_length, max(1, len(self.tok_encode(context))) + written)

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the token ids of a context, at least one, and of its continuation.

        An empty context becomes the harness's prefix token. Raises ValueError for a continuation that adds no token:
        nothing would be left to score.
        """
        ids, following = self._encode_pair(context, continuation) if context else ([], [])
        if not ids:
            following = self.tok_encode(context + continuation, add_special_tokens=False)
            ids = [self.prefix_token_id]
            if following[:1] == ids:
                following = following[1:]
        if continuation and not following:
            raise ValueError(
                f"the answer {continuation!r} adds no token of its own after {context[-20:]!r}, so there is nothing to "
                "score; let the task's answers begin with a space (target_delimiter)"
            )
        return ids, following

    def after(self, context: str, row: Sequence[int], answer: str) -> list[int]:
        """Return the token ids that an answer adds after a context, which the model reads as the ``row``."""
        ids, following = self.encode_pair(context, answer)
        # White space at the end of a context may become part of the answer's first token.
        whole = len(ids) >= len(row) and ids[len(ids) - len(row) :] == list(row)
        return following if whole else self.tok_encode(answer, add_special_tokens=False)

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # A row of nothing but padding would have no context.
        rows = [
            self.tok_encode(string, left_truncate_len=left_truncate_len) or [self.prefix_token_id] for string in strings
        ]
        width = max(map(len, rows))
        padding = [[self.tokenizer.pad_token_id] * (width - len(row)) for row in rows]
        ids = [pad + row if padding_side == "left" else row + pad for pad, row in zip(padding, rows, strict=True)]
        mask = [[0] * len(pad) + [1] * len(row) for pad, row in zip(padding, rows, strict=True)]
        if padding_side != "left":
            mask = [row[::-1] for row in mask]
        return torch.tensor(ids), torch.tensor(mask)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        for request in requests:
            wanted = normalize_gen_kwargs(request.args[1], self.max_gen_toks)["max_gen_toks"]
            if wanted >= self.max_length:
                raise ValueError(
                    f"task {request.task_name} generates up to {wanted} tokens, which leaves no room for a prompt in "
                    f"the model's {self.max_length} positions; leave the task out, or give a model with more positions"
                )
        self._number_copies(requests)
        # The harness's own progress bar would stay on the screen, and fill log files.
        with advancing("generation", len(requests)) as self._advance, self._all_at_once(len(requests)):
            self._write_greedily(requests)
            texts: list[str] = super().generate_until(requests, disable_tqdm=True)
        self._keep_written(requests)
        return texts

    def _number_copies(self, requests: list[Any]) -> None:
        """Count the copies of each request: several answers are asked for by handing it over several times."""
        self._copies, seen = {}, Counter[int]()
        for request in requests:
            self._copies.setdefault(self._prompt(request)[0], []).append(seen[id(request)])
            seen[id(request)] += 1

    def _write_greedily(self, requests: list[Any]) -> None:
        """Continue all prompts whose answers are greedy, of all tasks together: the harness would part their limits."""
        prompts = [self._prompt(request) for request in requests]
        asked = [each for each, greedy in prompts if greedy]
        self._greedy = dict(zip(asked, self._continued(asked, do_sample=False), strict=True))

    def _prompt(self, request: Any) -> tuple[_Prompt, bool]:
        """Return what the harness has the model read for a request, and whether the answer is greedy."""
        context, given = request.args[:2]
        settings = normalize_gen_kwargs(given, self.max_gen_toks)
        until, limit = settings.pop("until"), settings.pop("max_gen_toks")
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        row = self.tok_encode(context, left_truncate_len=self.max_length - limit) or [self.prefix_token_id]
        return _Prompt(tuple(row), tuple(handle_stop_sequences(until, end)), limit), is_greedy(settings)

    def _continued(self, asked: Sequence[_Prompt], **settings: Any) -> list[list[int]]:
        """Continue prompts; return the new tokens of each."""
        if not asked:
            return []
        check_room(self.model, min(self.rows, len(asked)), max(len(each.row) + each.limit for each in asked))
        if settings.get("num_beams", 1) > 1:
            return self._beams(asked, **settings)
        until: dict[tuple[Any, ...], Until] = {}
        for _, stops, limit in asked:
            criteria = partial(stop_sequences_criteria, self.tokenizer, list(stops))
            until.setdefault((stops, limit), Until(limit, criteria))
        rows, ends = [each.row for each in asked], [until[stops, limit] for _, stops, limit in asked]
        pad = self.tokenizer.pad_token_id
        return continue_many(self.model, rows, ends, self.rows, pad, self._advance, **settings)

    def _keep_written(self, requests: list[Any]) -> None:
        """Keep the tokens that answer each request, which the harness turns into text."""
        ends = self.ends
        for request in requests:
            asked, _ = self._prompt(request)
            tokens = self._texts[asked].pop(0)
            kept, done = ended(tokens, ends, asked.stops, self.tok_decode)
            written = Written(asked.row, tuple(kept), not done)
            self.written.setdefault((request.task_name, request.doc_id), []).append(written)

    @property
    def ends(self) -> set[int]:
        """The tokens that end a text."""
        return {*end_tokens(self.model, self.tokenizer), self.eot_token_id}

    @contextmanager
    def _all_at_once(self, count: int) -> Iterator[None]:
        """Let the harness hand over all contexts with equal parameters together, to be batched here."""
        self.batch_size_per_gpu = max(count, 1)
        try:
            yield
        finally:
            self.batch_size_per_gpu = self.rows

    def _model_generate(
        self,
        context: torch.Tensor,
        max_length: int,
        stop: list[str],
        *,
        attention_mask: torch.Tensor,
        **settings: Any,
    ) -> torch.Tensor:
        """Continue left-padded contexts (B, T); return token ids (B, T + new) of contexts and continuations."""
        width, pad = context.shape[1], self.tokenizer.pad_token_id
        rows = [tuple(row[read].tolist()) for row, read in zip(context, attention_mask.bool(), strict=True)]
        asked = [_Prompt(row, tuple(stop), max_length - width) for row in rows]
        if is_greedy(settings) and all(each in self._greedy for each in asked):
            written = [self._greedy[each] for each in asked]
        else:
            if not settings.get("do_sample"):
                settings.pop("temperature", None)
            written = self._continued(asked, **settings)
        for each, tokens in zip(asked, written, strict=True):
            self._texts.setdefault(each, []).append(tokens)
        longest = max(map(len, written))
        new = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in written], dtype=torch.long)
        return torch.cat([context, new.to(context.device)], 1)

    def _beams(self, asked: Sequence[_Prompt], **settings: Any) -> list[list[int]]:
        """Continue prompts of equal limits and stops by beam search; the n-th copy of a request gets the n-th beam."""
        found: list[list[int]] = [[]] * len(asked)
        copies: dict[_Prompt, list[tuple[int, int]]] = {}
        for place, each in enumerate(asked):
            copies.setdefault(each, []).append((place, self._copies[each].pop(0)))

        def is_done(tokens: list[int]) -> bool:
            return any(each in self.tok_decode(tokens) for each in asked[0].stops if each)

        together = max(1, self.rows // settings["num_beams"])
        # Requests with the same prompt ask for the same beams, and as many as the one with most copies.
        wanted: dict[int, list[_Prompt]] = {}
        for each, owners in copies.items():
            wanted.setdefault(1 + max(number for _, number in owners), []).append(each)
        pad = self.tokenizer.pad_token_id
        for count, prompts in wanted.items():
            rows = [each.row for each in prompts]
            for at, beams in best_beams(self.model, rows, count, asked[0].limit, pad, is_done, together, **settings):
                for place, number in copies[prompts[at]]:
                    found[place] = beams[number]
                self._advance(len(copies[prompts[at]]))
        return found

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Answer]:
        return self._loglikelihood_tokens([(request.args, *self.encode_pair(*request.args)) for request in requests])

    def _loglikelihood_tokens(self, requests: list[Request], *_: Any, **__: Any) -> list[Answer]:
        pairs = [self._cut(context, continuation) for _, context, continuation in requests]
        check_room(self.model, self.batch_size, max((len(own) + len(rest) for own, rest in pairs), default=1))
        answers = log_likelihoods(self.model, pairs, self.batch_size)
        self.rounding = max(self.rounding, rounding(self.model, pairs, answers))
        for (strings, _context, _continuation), answer in zip(requests, answers, strict=True):
            if strings is not None:
                self.cache_hook.add_partial("loglikelihood", strings, answer)
        return answers

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """Drop the beginning of a context where the model has no room for it, as the harness does."""
        return context[-self.room(continuation) :], continuation

    def room(self, continuation: list[int]) -> int:
        """Return how many tokens of context fit before a continuation, whose last token takes no position.

        Raises ValueError if not even one fits.
        """
        room = self.max_length + 1 - len(continuation)
        if room < 1:
            raise ValueError(
                f"a task has an answer of {len(continuation)} tokens, but the model has {self.max_length} positions "
                f"({self.tok_decode(continuation[:20])!r} ...); leave the task out, or give a model with more positions"
            )
        return room


def is_greedy(settings: Mapping[str, Any]) -> bool:
    """Return whether normalised settings of generation ask for the likeliest token each time and for nothing else."""
    return not any(settings.values())
