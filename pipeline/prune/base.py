"""The contract of a pruner, and what it is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from pipeline.common.terminal import Progress, progress
from pipeline.config.component import Component
from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder
from pipeline.model.trajectory import Trajectory
from pipeline.prune.decision import Change, Decision
from pipeline.prune.workspace import Workspace

Score = dict[str, Any]
Dropped = Mapping[str, Sequence[int]]
Candidates = Sequence[tuple[str, int]]


def no_scores(dropped: Dropped, candidates: Candidates = ()) -> list[Score]:
    """Stands where nobody has said how scores are had."""
    raise ValueError("this pruner ranks by scores, but its context has none")


@dataclass(frozen=True)
class Context:
    """What a pruner works with, beside the dense model.

    ``batches`` are the tokenised calibration text, (sequences, tokens) int64 without padding; empty for a pruner that
    is not calibrated. ``trajectory`` is the same text with the final states of the dense model, for a pruner that
    ``compares``. ``scores(dropped, candidates)`` gives the rows of its ``importance`` on the model without those
    sublayers (layer numbers by kind), computed once and kept; ``candidates`` are what it is asked for (kind and layer
    number), if not for everything. ``changes`` is where changed weights go, block by block: what is
    in there already was decided by a run that was interrupted. ``scratch`` is a folder for what memory cannot hold,
    ``workspace`` is for what ``importance`` needs at every call, and the same all through a decision. ``seed`` is the
    experiment's, from which every random choice follows: see ``pipeline.prune.methods.random``.
    """

    batches: list[torch.Tensor] = field(default_factory=list)
    trajectory: Trajectory | None = None
    scores: Callable[..., list[Score]] = no_scores
    candidates: Candidates = ()
    changes: MutableMapping[int, Change] = field(default_factory=dict)
    progress: Progress = progress
    scratch: Path | None = None
    workspace: Workspace = field(default_factory=Workspace)
    seed: int = 0

    @property
    def sequences(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def each(self, what: str) -> Iterable[torch.Tensor]:
        """The batches behind a progress bar named ``what``."""
        return self.progress(self.batches, what, len(self.batches))


@dataclass(frozen=True)
class Pruner(Component):
    """Chooses what to remove from a dense model.

    ``accepts`` names the kinds of sparsity that make sense (see ``pipeline.config.sparsity``), ``unit`` what an integer
    sparsity counts, and ``calibrated`` whether text is needed. All are literals: they are read before any model
    library is imported. A pruner implements ``decide``; one that ranks by scores that do not depend on the sparsity
    implements ``importance`` too and reads them from ``context.scores``, so that one pass serves every sparsity.
    """

    accepts: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str] = ""
    calibrated: ClassVar[bool] = True
    # Whether it compares with what the dense model makes of the calibration text.
    compares: ClassVar[bool] = False
    # Whether its scores are drawn with the experiment's seed, so that each seed has scores of its own.
    seeded: ClassVar[bool] = False

    def scoring_identity(self) -> dict[str, Any]:
        """What ``importance`` depends on: the class that defines it, and the fields that it may read.

        Pruners that inherit it without fields of their own share their scores.
        """
        definer: Any = next(cls for cls in type(self).__mro__ if "importance" in cls.__dict__)
        own = self.identity()
        return own | {"type": definer.__qualname__, "version": definer.version}

    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Scores that serve every sparsity, as rows with ``layer``, ``sublayer`` and ``score``; the lowest go first."""
        raise TypeError(f"pruner {type(self).__name__} does not define importance()")

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        """Decide on the dense model, which may be left with weights changed as decided, never otherwise changed.

        Raises ValueError if the sparsity cannot be had on this model.
        """
        raise TypeError(f"pruner {type(self).__name__} does not define decide()")
