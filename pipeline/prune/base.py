"""The contract of a pruner, and the context that it works in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.common.terminal import Progress, progress
from pipeline.config.component import Component, stable_name
from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder
from pipeline.model.model_types import is_encoder, unsuited
from pipeline.model.trajectory import Trajectory
from pipeline.prune.decision import Change, Decision
from pipeline.prune.shared_setup import SharedSetup

if TYPE_CHECKING:
    import torch

Score = dict[str, Any]
# What each row of scores has.
SCORE_KEYS = ("layer", "sublayer", "score")
Dropped = Mapping[str, Sequence[int]]
Candidates = Sequence[tuple[str, int]]


def no_scores(dropped: Dropped, candidates: Candidates = ()) -> list[Score]:
    """Raise ValueError: the default of a context that provides no scores."""
    raise ValueError("this pruner ranks by scores, but its context has none")


@dataclass(frozen=True)
class Context:
    """Inputs of a pruner besides the dense model.

    ``batches`` are the tokenised calibration text, (sequences, tokens) int64 without padding; empty for a pruner that
    is not calibrated. ``trajectory`` is the same text with the final states of the dense model, for a pruner that
    ``compares``. ``scores(dropped, candidates)`` returns the rows of its ``importance`` on the model without those
    sublayers (layer numbers by kind), computed once and kept; ``candidates`` are the units to score (kind and layer
    number), if not all of them. ``changes`` collects the changed weights, block by block: entries that are there
    already were decided by an interrupted run. ``scratch`` is a folder for data that does not fit in memory;
    ``setup`` keeps what ``importance`` needs at every call, and is the same throughout a decision. ``seed`` is the
    experiment's, from which every random choice follows: see ``pipeline.prune.methods.random``.
    """

    batches: list[torch.Tensor] = field(default_factory=list)
    trajectory: Trajectory | None = None
    scores: Callable[..., list[Score]] = no_scores
    candidates: Candidates = ()
    changes: MutableMapping[int, Change] = field(default_factory=dict)
    progress: Progress = progress
    scratch: Path | None = None
    setup: SharedSetup = field(default_factory=SharedSetup)
    seed: int = 0

    @property
    def sequences(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def each(self, what: str) -> Iterable[torch.Tensor]:
        """Return the batches behind a progress bar named ``what``."""
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
    # Whether it compares with the dense model's states on the calibration text, as only decoders can.
    compares: ClassVar[bool] = False
    # Whether it is meant for text that the dense model writes itself, so that other text has to be asked for.
    own_text: ClassVar[bool] = False
    # Whether it needs a model that predicts tokens.
    decoder_only: ClassVar[bool] = False
    # Model types that it works on, as in a model's ``config.json``; empty for all.
    architectures: ClassVar[tuple[str, ...]] = ()
    # Whether its scores are drawn with the experiment's seed: each seed then has its own scores.
    seeded: ClassVar[bool] = False

    def unsuited(self, config: Any) -> str | None:
        """Return why it does not work on a model of this configuration, with the way out; None if it does."""
        return unsuited(config.model_type, is_encoder(config), self.decoder_only or self.compares, self.architectures)

    def scoring_identity(self) -> dict[str, Any]:
        """Return what ``importance`` depends on: the class that defines it, and the fields that it may read.

        Pruners that inherit it and add no fields share their scores.
        """
        definer: Any = next(cls for cls in type(self).__mro__ if "importance" in cls.__dict__)
        own = self.identity()
        return own | {"type": stable_name(definer), "version": definer.version}

    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        """Return scores that serve every sparsity, as rows with ``layer``, ``sublayer`` and ``score``.

        The lowest are removed first.
        """
        raise TypeError(f"pruner {type(self).__name__} does not define importance()")

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        """Decide on the dense model, which may be left with weights changed as decided, but not changed otherwise.

        Raises ValueError if this model does not allow for the sparsity.
        """
        raise TypeError(f"pruner {type(self).__name__} does not define decide()")
