"""Scoring by models with dropped units, beside what counted operations predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch.utils.flop_counter import FlopCounterMode

from pipeline.bench.ratios import ratio, report, settings_of
from pipeline.evaluate.by_harness import encode_requests
from pipeline.evaluate.harness import load_tasks
from pipeline.evaluate.language_model import InMemoryLM
from pipeline.model.sources.base import resolve_dtype
from pipeline.prune.decision import Decision
from pipeline.prune.settings import Settings
from pipeline.prune.surgery import apply
from pipeline.store.artifacts import Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Benchmarks to score, with long and with short items.
SCORED = ("boolq", "commonsense_qa", "piqa")


def evaluating(settings: Settings, store: Store, repeats: int) -> None:
    """Measure how much dropped units speed up multiple-choice scoring, beside what counted operations predict."""
    tokenizer, seed = settings.model.tokenizer(store), settings.seed
    task = settings_of("task=offline", f"task.names=[{','.join(SCORED)}]", "task.limit=24").task
    dense = settings.model.load(resolve_dtype("auto"), store)
    encode_requests(dense, tokenizer, task, seed)
    requests = [request for task in load_tasks(task, seed).tasks.values() for request in task.instances]

    def scoring(model: PreTrainedModel) -> Callable[[], object]:
        harness = InMemoryLM(model, tokenizer, settings.task.batch_size)
        return lambda: harness.loglikelihood(requests, disable_tqdm=True)

    def operations(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    base = scoring(dense)
    base()  # the first call tries the model out, too
    for name, decision in (
        ("attention_8", Decision(attention=tuple(range(10, 18)))),
        ("blocks_6", Decision(blocks=tuple(range(20, 26)))),
    ):
        model = settings.model.load(resolve_dtype("auto"), store)
        apply(model, decision)
        pruned = scoring(model)
        pruned()
        counted = operations(base) / operations(pruned)
        measured = ratio(base, pruned, repeats)
        report(f"scoring_without_{name}_speedup", measured)
        report(f"scoring_without_{name}_counted", counted)
        report(f"scoring_without_{name}_share", (measured - 1) / (counted - 1))
