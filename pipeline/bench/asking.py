"""Evaluation against lm-eval's own ``HFLM`` on the same model object, with the same requests and batch size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from pipeline.bench.ratios import median_ratio, report, settings_of, timed
from pipeline.evaluate.by_harness import encode_requests
from pipeline.evaluate.harness import load_tasks
from pipeline.evaluate.language_model import InMemoryLM
from pipeline.evaluate.likelihoods import log_likelihoods
from pipeline.model.decoder import Decoder
from pipeline.model.sources.base import resolve_dtype
from pipeline.prune.settings import Settings
from pipeline.store.artifacts import Store

if TYPE_CHECKING:
    import torch

# Both forms of matched items, and benchmarks with long and with short items, each in one call.
MATCHED = ("task=matched", "task.limit=16")
BENCHMARKS = ("task=offline", "task.names=[boolq,commonsense_qa,piqa,openbookqa]", "task.limit=24")
CHOICE, GENERATION = "loglikelihood", "generate_until"


class _Side:
    """The same requests for both harnesses. ``HFLM`` sorts and batches them as it does under lm-eval."""

    def __init__(self, model: Any, tokenizer: Any, size: int) -> None:
        self.ours = InMemoryLM(model, tokenizer, size)
        self._size = size
        self.theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size)

    def timed(self, kind: str, requests: Sequence[Any], repeats: int) -> list[tuple[float, float]]:
        """Return the seconds that lm-eval takes and those that we take."""
        asked = list(requests)
        runs = [lambda lm=lm: getattr(lm, kind)(asked, disable_tqdm=True) for lm in (self.theirs, self.ours)]
        return timed(runs[0], runs[1], repeats)

    def score(self, requests: Sequence[Any]) -> None:
        """Compute the log-likelihoods, without asking some again to measure their rounding."""
        log_likelihoods(self.ours.model, [self.ours.encode_pair(*request.args) for request in requests], self._size)

    def distinct(self, requests: Sequence[Any]) -> int:
        """Count the distinct beginnings of the requests: the tokens that have to go through the model."""
        pairs = (self.ours.encode_pair(*request.args) for request in requests)
        runs = [(*context, *rest[:-1]) for context, rest in pairs]
        return len({run[:end] for run in runs for end in range(1, len(run) + 1)})


def asking(settings: Settings, store: Store, repeats: int) -> None:
    """Report lm-eval's time over ours for multiple choice and generation, and tokens run over distinct ones."""
    model = settings.model.load(resolve_dtype(settings.dtype), store)
    tokenizer = settings.model.tokenizer(store)

    def tasks_of(*overrides: str) -> tuple[_Side, dict[str, list[Any]]]:
        suite = settings_of(*overrides).task
        encode_requests(model, tokenizer, suite, settings.seed)
        loaded = load_tasks(suite, settings.seed).tasks
        return _Side(model, tokenizer, suite.batch_size), {name: task.instances for name, task in loaded.items()}

    side, matched = tasks_of(*MATCHED)
    by_kind = {
        kind: [each for asked in matched.values() for each in asked if each.request_type == kind]
        for kind in (CHOICE, GENERATION)
    }
    found = {kind: side.timed(kind, by_kind[kind], repeats) for kind in (CHOICE, GENERATION)}
    both = [(a + c, b + d) for (a, b), (c, d) in zip(found[CHOICE], found[GENERATION], strict=True)]
    report("matched_vs_lm_eval", median_ratio(both))
    report("choice_vs_lm_eval", median_ratio(found[CHOICE]))
    report("generation_vs_lm_eval", median_ratio(found[GENERATION]))
    with _tokens(model) as counted:
        side.score(by_kind[CHOICE])
    report("choice_tokens_vs_tree", sum(counted) / side.distinct(by_kind[CHOICE]))

    side, tasks = tasks_of(*BENCHMARKS)
    together = [each for asked in tasks.values() for each in asked]
    report("choice_benchmarks_vs_lm_eval", median_ratio(side.timed(CHOICE, together, repeats)))
    alone = [median_ratio(side.timed(CHOICE, asked, repeats)) for asked in tasks.values()]
    report("choice_slowest_task_vs_lm_eval", min(alone))
    with _tokens(model) as counted:
        side.score(together)
    report("choice_benchmarks_tokens_vs_tree", sum(counted) / side.distinct(together))


@contextmanager
def _tokens(model: torch.nn.Module) -> Iterator[list[int]]:
    """Gather the number of tokens of every forward pass within the block, with padding."""
    found: list[int] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        found.append((args[0] if args else kwargs["input_ids"]).numel())

    hook = Decoder(model).base.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()
