"""Whether a job fits into memory, counted on the shapes of its model before any work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pipeline.capture.room import Asked, capturing
from pipeline.capture.stage import Continuations
from pipeline.config.probes import encode
from pipeline.config.schema import FREE_RUNNING
from pipeline.evaluate.perplexity import held_out
from pipeline.evaluate.room import asking, reading
from pipeline.evaluate.stage import Evaluation, Requests, longest_request
from pipeline.measure.room import measuring
from pipeline.model.activations import free_memory
from pipeline.model.memory import Need, in_gib, weight_bytes
from pipeline.model.sources.base import device
from pipeline.prune.pruned_model import shape_of
from pipeline.prune.stage import PruningDecision
from pipeline.prune.workbench import Workbench

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
# A job is not counted where its weights so many times, and its logits, are less than a quarter of the free memory.
_TIMES = 16
_PASSES = 4


@dataclass(frozen=True)
class Work:
    """One kind of work of a job: its ``name``, ``dtype``, the bytes of the weights in it, and what its steps take.

    ``keys`` are settings that make it smaller, as they are given.
    """

    name: str
    dtype: str
    weights: int
    needs: tuple[Need, ...]
    keys: tuple[str, ...]

    def peak(self, on_gpu: bool) -> int:
        """Return the most bytes in the memory of the model's device, with the weights."""
        return self.weights + max(need.passes + (0 if on_gpu else need.kept) for need in self.needs)

    def problem(self, room: int, on_gpu: bool = False) -> str | None:
        """Return a sentence with the ways out if the work does not fit into so many bytes, else None."""
        peak = self.peak(on_gpu)
        if peak <= room:
            return None
        return (
            f"{self.name} needs {in_gib(peak)} of memory, {in_gib(self.weights)} of them for weights in {self.dtype}, "
            f"but there are {in_gib(room)}; give {', '.join(self.keys)}, model.device_map=auto, or another device"
        )


def check_memory(bench: Workbench) -> None:
    """Raise ValueError if what a job still has to evaluate or capture does not fit into the free memory.

    Work that is small by an estimate is not counted, nor what ``model.device_map`` spreads.
    """
    stages = set(bench.settings.stages)
    decided = bench.find(PruningDecision) is not None
    evaluates = "evaluate" in stages and not (decided and bench.find(Evaluation))
    captures = bool({"capture", "measure"} & stages) and not (decided and _is_captured(bench))
    if not (evaluates or captures) or (model := _shape(bench, bench.dtype)) is None:
        return
    size, writes = bench.settings.task.batch_size, bench.settings.task.writes_text
    longest = longest_request(bench.make(Requests)) if evaluates and writes else 0
    tokens = longest * size if isinstance(size, int) else 0
    room, on_gpu = free_memory(device()), device().type == "cuda"
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if _TIMES * weight_bytes(model) + _PASSES * 4 * tokens * vocabulary < room // 4:
        return
    works = evaluation(bench, longest) if evaluates else []
    works += capture(bench, _encoded(bench), longest) if captures else []
    if found := [problem for work in works if (problem := work.problem(room, on_gpu))]:
        raise ValueError("; ".join(found))


def evaluation(bench: Workbench, longest: int) -> list[Work]:
    """Return the evaluation of a job, with requests of up to ``longest`` tokens; none if its shapes are not known.

    ``longest`` is 0 where no requests are counted; a batch size that is found later fits by itself.
    """
    return _counted(_evaluation(bench, longest))


def capture(bench: Workbench, prompts: Sequence[int], longest: int) -> list[Work]:
    """Return capturing and measuring, of probes with so many tokens; none if the model's shapes are not known."""
    return _counted(_capture(bench, prompts, longest))


def _counted(works: Iterator[Work]) -> list[Work]:
    """Return what can be counted: some models need values in a pass."""
    try:
        return list(works)
    except Exception as error:
        log.debug("memory is not counted: %s", error)
        return []


def _evaluation(bench: Workbench, longest: int) -> Iterator[Work]:
    model, settings = _shape(bench, bench.dtype), bench.settings
    if model is None:
        return
    needs, keys, text = [Need(0)], [], held_out(settings.perplexity)
    if text is not None:
        needs.append(reading(model, text))
        keys.append("perplexity.window=256")
    if longest and settings.task.writes_text and isinstance(settings.task.batch_size, int):
        needs.append(asking(model, settings.task.batch_size, longest))
        keys.insert(0, f"task.batch_size={max(1, settings.task.batch_size // 2)}")
    if bench.dtype == "float32":
        keys.insert(0, "dtype=bfloat16")
    yield Work("evaluating", bench.dtype, weight_bytes(model), tuple(needs), tuple(keys))


def _capture(bench: Workbench, prompts: Sequence[int], longest: int) -> Iterator[Work]:
    settings = bench.settings
    chosen = settings.capture
    model = _shape(bench, chosen.dtype)
    if model is None:
        return
    steps = [min(probe.steps or chosen.steps, chosen.steps) for probe in settings.probes]
    question = max(*prompts, longest if chosen.option_items else 0)
    changed = settings.pruner.unit == "weight"
    asked = Asked(prompts, steps, chosen.protocols, question, changed)
    needs = (*capturing(model, asked), measuring(model, asked.positions, changed))
    keys: tuple[str, ...] = () if chosen.dtype == "bfloat16" else ("capture.dtype=bfloat16",)
    keys += (f"capture.steps={max(1, chosen.steps // 2)}", "fewer probes")
    yield Work("capturing", chosen.dtype, weight_bytes(model), needs, keys)


def _shape(bench: Workbench, dtype: str) -> PreTrainedModel | None:
    """Return the shapes of a job's model, once a dtype; None where they are not known, or placed by accelerate."""
    if getattr(bench.settings.model, "device_map", None) is not None:
        return None
    return bench.once(_SHAPES[dtype])


# A function for each dtype, since a workbench keeps what a function computes.
_SHAPES: Mapping[str, Callable[[Workbench], PreTrainedModel | None]] = {
    name: partial(shape_of, dtype=name) for name in ("float16", "bfloat16", "float32", "float64")
}


def _encoded(bench: Workbench) -> list[int]:
    return [len(encode(probe, bench.tokenizer)) for probe in bench.settings.probes]


def _is_captured(bench: Workbench) -> bool:
    own = bench if FREE_RUNNING in bench.settings.capture.protocols else bench.dense
    return bool(own.find(PruningDecision) and own.find(Continuations))
