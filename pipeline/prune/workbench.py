"""The workbench that the stages of one job share: settings, store, the one model in memory, and the dense baseline.

A model is in memory only while something is built; it is rebuilt as ``apply(load(model), decision)``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import torch

from pipeline.config.lengths import too_long
from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.model.proof import prove
from pipeline.model.sources.base import resolve_dtype
from pipeline.prune.methods.dense import Dense
from pipeline.prune.settings import Settings
from pipeline.prune.vet import vet
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.stage import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Result = TypeVar("Result")


class OfJob(Protocol):
    """A stage that a job has once and that needs only the job's workbench."""

    def __call__(self, bench: Any) -> Stage: ...


@dataclass
class Workbench:
    """One job at work: the artifacts of its stages, each made once, and its model, dense or pruned."""

    settings: Settings
    store: Store
    # The one model in memory, by dtype and whether it is pruned; shared with the baseline's workbench.
    held: dict[tuple[str, bool], PreTrainedModel] = field(default_factory=dict)
    _made: dict[OfJob, Artifact] = field(default_factory=dict)
    _computed: dict[Callable[..., Any], Any] = field(default_factory=dict)

    # --- artifacts ---------------------------------------------------------------------------------------------

    def make(self, stage: OfJob) -> Artifact:
        """Return the artifact of a stage of this job: the one in the store, or built now."""
        if stage not in self._made:
            self._made[stage] = stage(self).make(self.store)
        return self._made[stage]

    def find(self, stage: OfJob) -> Artifact | None:
        """Return the artifact of a stage of this job if it is there already."""
        return self._made.get(stage) or stage(self).find(self.store)

    def once(self, compute: Callable[[Self], Result]) -> Result:
        """Return what a function computes of this workbench, computed at the first call."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        return self._computed[compute]

    @cached_property
    def dense(self) -> Self:
        """The workbench of the unpruned baseline under the same settings."""
        if self.is_dense:
            return self
        return type(self)(replace(self.settings, pruner=Dense(name="dense"), sparsity=parse(0)), self.store, self.held)

    @property
    def is_dense(self) -> bool:
        return isinstance(self.settings.pruner, Dense)

    @property
    def is_unchanged(self) -> bool:
        """Whether the pruned model is the dense one, as at sparsity 0."""
        return not self.is_dense and self.settings.sparsity.is_zero and bool(self.settings.pruner.accepts)

    # --- the model ---------------------------------------------------------------------------------------------

    @cached_property
    def dtype(self) -> str:
        """The dtype that the model is pruned and evaluated in."""
        return str(resolve_dtype(self.settings.dtype)).removeprefix("torch.")

    @cached_property
    def model_identity(self) -> dict[str, Any]:
        return self.settings.model.identity()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.settings.model.tokenizer(self.store)

    def model(self, dtype: str, prune: Callable[[PreTrainedModel], object] | None = None) -> PreTrainedModel:
        """Return the dense model in a dtype, or with ``prune`` the one that this makes of it, in place.

        Only one model at a time is in memory.
        """
        key = dtype, prune is not None
        if key not in self.held:
            self.release()
            model = self.settings.model.load(getattr(torch, dtype), self.store)
            vet(model, f"model {self.settings.model.name}")
            self._check_lengths(model)
            prove(model)
            model.embedding_recipe = self.settings.model.embedding or {}
            if prune is not None:
                prune(model)
                vet(model, f"model {self.settings.model.name} pruned by {self.settings.pruner.name}")
            self.held[key] = model
        return self.held[key]

    def _check_lengths(self, model: PreTrainedModel) -> None:
        """Refuse sequences beyond the model's positions before anything is computed for the others."""
        positions = Decoder(model).positions
        calibrated = self.settings.pruner.calibrated
        if positions is not None and (found := too_long(self.settings.flat, positions, calibrated)):
            raise ValueError("; ".join(found))

    def keep(self, model: PreTrainedModel, pruned: bool) -> None:
        """Keep a loaded, perhaps pruned, model of this job as the one in memory."""
        self.held.clear()
        self.held[self.dtype, pruned] = model

    def release(self) -> None:
        """Release the model in memory."""
        self.held.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
