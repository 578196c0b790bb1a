"""The memory of the jobs of a dry run, beside what the machine has: a table, and a sentence for what cannot fit."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from pipeline.common.terminal import show_table
from pipeline.model.memory import in_gib
from pipeline.model.sources.base import device
from pipeline.prune.workbench import Workbench
from pipeline.run.launchers.memory import memory
from pipeline.run.room import Work, capture, evaluation

# Tokens of the longest request, where tasks are not loaded.
_REQUEST = 512
# Characters of a token, and tokens of a chat format, where no tokenizer is loaded.
_CHARACTERS, _FORMAT = 3, 40
_UNKNOWN = "not known: a configuration of a text model is not here without a download or a conversion"
_NOTHING, _SPREAD = "nothing to load", "spread by model.device_map"


class MemoryPlan:
    """Gathers what each job takes; equal jobs are counted once."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = []
        self._known: dict[Hashable, list[Work]] = {}
        self.problems: list[str] = []
        self._on_gpu = device().type == "cuda"
        self._total = _total(self._on_gpu)

    def add(self, bench: Workbench, evaluates: bool, captures: bool) -> None:
        """Count a job that has to evaluate or to capture; ``bench`` builds nothing."""
        number = str(len(self._rows))
        if not (evaluates or captures):
            self._rows.append([number, _NOTHING])
        elif getattr(bench.settings.model, "device_map", None) is not None:
            self._rows.append([number, _SPREAD])
        else:
            works = self._counted(bench, evaluates, captures)
            self._rows.append([number, "; ".join(map(self._told, works)) or _UNKNOWN])
            for work in works:
                problem = work.problem(self._total, self._on_gpu)
                if problem and problem not in self.problems:
                    self.problems.append(problem)

    def show(self) -> None:
        """Print the table."""
        where = "GPU" if self._on_gpu else "machine"
        note = (
            f"Peaks with the weights; this {where} has {in_gib(self._total)}. Requests are taken to have {_REQUEST} "
            "tokens here; a job counts with its longest one, before it prunes."
        )
        show_table("Memory", ["job", "peak"], self._rows, note)

    def _counted(self, bench: Workbench, evaluates: bool, captures: bool) -> list[Work]:
        settings = bench.settings
        parts = (settings.model, bench.dtype, settings.task.batch_size, settings.perplexity, settings.capture)
        key = repr((*parts, settings.probes, settings.pruner.unit, evaluates, captures))
        if key not in self._known:
            prompts = [len(probe.prompt) // _CHARACTERS + _FORMAT for probe in settings.probes]
            works = [*evaluation(bench, _REQUEST)] if evaluates else []
            self._known[key] = [*works, *(capture(bench, prompts, _REQUEST) if captures else ())]
        return self._known[key]

    def _told(self, work: Work) -> str:
        return f"{work.name} {in_gib(work.peak(self._on_gpu))} (weights {in_gib(work.weights)} in {work.dtype})"


def _total(on_gpu: bool) -> int:
    if not on_gpu:
        return memory().total
    return int(torch.cuda.mem_get_info(device())[1])
