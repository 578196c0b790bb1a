"""Prune a model that is in memory, by the name of a pruner: the interface for Python and notebooks."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.config.by_name import built, component, defaults, plain
from pipeline.config.lengths import too_long
from pipeline.config.sparsity import KINDS, Sparsity, parse, unaccepted
from pipeline.data.calibration.base import CalibrationSet, batches
from pipeline.data.calibration.given import GivenText
from pipeline.model.borrowed import borrowed
from pipeline.model.decoder import Decoder
from pipeline.model.dropped import Replaced
from pipeline.model.offload import is_offloaded
from pipeline.model.proof import prove
from pipeline.model.trajectory import Trajectory
from pipeline.prune.base import Candidates, Context, Dropped, Pruner
from pipeline.prune.calibration import context_of, own_text, states_on
from pipeline.prune.decide import carry_out, decide, score
from pipeline.prune.decision import Decision
from pipeline.prune.packed_changes import PackedChanges
from pipeline.prune.shared_setup import SharedSetup
from pipeline.prune.vet import vet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Calibration where none is chosen: given text, and what the model writes itself for pruners that are meant for that.
_GIVEN, _OWN = "news", "trajectories"
# Options whose defaults texts share with it.
_SHARED = ("length", "seed", "batch_size")


@dataclass(frozen=True)
class Pruned:
    """A pruned model and how it came about.

    Attributes:
        model: the pruned model, an ordinary one of transformers that can be called, trained and used for generation.
        decision: what was removed or changed: ``blocks``, ``attention`` and ``mlp`` are dropped layer numbers,
            ``changes`` the changed weights by block, ``scores`` the rows behind the choice, ``achieved`` the share of
            the decoder blocks' parameters that is removed or zero.
        pruner: the pruner with its options.
        sparsity: the sparsity as it was read.
        seed: the seed that random choices follow.
        calibration: the calibration text; None for a pruner that reads none.
        dropped: the modules of dropped sublayers, on the processor, for `pipeline.api.export`.
    """

    model: PreTrainedModel
    decision: Decision
    pruner: Pruner
    sparsity: Sparsity
    seed: int = 0
    calibration: CalibrationSet | None = None
    dropped: Sequence[Replaced] = field(default=(), repr=False)

    def __repr__(self) -> str:
        what = f"{self.pruner.name} {self.sparsity.given}" if self.pruner.accepts else self.pruner.name
        return f"Pruned({what}: {self.decision.achieved:.1%} of the blocks' parameters removed or zero)"


def prune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    pruner: str | Pruner,
    sparsity: object = None,
    *,
    texts: Sequence[str] | None = None,
    calibration: str | Mapping[str, Any] | CalibrationSet | None = None,
    seed: int = 0,
    in_place: bool = False,
    **options: Any,
) -> Pruned:
    """Prune a model in memory; the model given stays as it is.

    The result is that of the same job on the command line. ::

        pruned = prune(model, tokenizer, "wanda", sparsity="2:4", texts=["Some text.", "Some more."])
        pruned = prune(model, tokenizer, "divergence", sparsity=4, beam=2)
        pruned.model.generate(**tokenizer("Once", return_tensors="pt"))

    Args:
        model: a dense causal language model or encoder, on any device and in any dtype.
        tokenizer: its tokenizer; may be None for a pruner that reads no text.
        pruner: a name in ``conf/pruner``, or a `Pruner` with its options.
        sparsity: as on the command line: 0.5 is a fraction, "2:4" is 2 of every 4 weights, 8 a number of blocks or
            sublayers. Not for pruners that remove nothing (dense, rtn, awq).
        texts: calibration text for pruners that read some, each text a sequence of at most ``length`` tokens.
        calibration: how to calibrate otherwise: a name in ``conf/calibration``, a mapping of its options with the name
            as ``name``, or a `CalibrationSet`; with ``texts``, a mapping of ``length``, ``packing`` and ``sequences``.
            Without both, ``news``, or ``trajectories``, the model's own continuations, for a pruner that is meant
            for them (``divergence`` and the like).
        seed: where random numbers start, within this call alone.
        in_place: prune the model itself instead of a copy. After an error the model is no longer usable.
        options: the pruner's options, such as ``beam=2``.

    Raises:
        ValueError: for an unknown name or option with the nearest one, values of a wrong type, a sparsity that does not
            go with the pruner or the model, and numbers that are not finite.
    """
    chosen = _pruner(pruner, options, seed)
    wanted = _sparsity(chosen, sparsity)
    source = calibration_set(chosen, texts, calibration, seed)
    name = name_of(model)
    _check(model, tokenizer, chosen, source)
    work = model if in_place else _copied(model)
    with borrowed([work], tokenizer, seed):
        vet(work, name)
        prove(work)
        decision = _decide(work, tokenizer, chosen, wanted, source, seed)
    gone = carry_out(work, name, chosen, decision)
    with borrowed([work], tokenizer, seed):
        vet(work, f"{name} pruned by {chosen.name}")
    kept = [(parent, place, module.cpu()) for parent, place, module in gone]
    return Pruned(work, decision, chosen, wanted, seed, source if chosen.calibrated else None, kept)


def name_of(model: PreTrainedModel) -> str:
    """Return what messages call a model: where it was loaded from, or its kind."""
    return f"model {model.config.name_or_path or model.config.model_type}"


def calibration_set(
    pruner: Pruner,
    texts: Sequence[str] | None,
    calibration: str | Mapping[str, Any] | CalibrationSet | None,
    seed: int,
) -> CalibrationSet:
    """Return the calibration set that is asked for, or the default one. Raises ValueError as `prune` does."""
    if isinstance(calibration, CalibrationSet):
        if texts is not None:
            raise ValueError("give either texts or a calibration set, not both")
        return calibration
    options = {"name": calibration} if isinstance(calibration, str) else dict(calibration or {})
    name = options.pop("name", None)
    if texts is None:
        return component("calibration", name or (_OWN if pruner.own_text else _GIVEN), options, seed=seed)
    if isinstance(texts, str) or name is not None:
        raise ValueError("texts should be a list of texts, without the name of another calibration")
    shared = {key: value for key, value in defaults("calibration", _GIVEN, seed=seed).items() if key in _SHARED}
    own = {"name": "texts", "texts": list(texts), "sequences": len(texts), "packing": False}
    target = f"{GivenText.__module__}.{GivenText.__qualname__}"
    return built("calibration", {"_target_": target, **shared, **own, **options})


@dataclass
class _Text:
    """Calibration text of a model and its states on that text, computed once."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: CalibrationSet

    @cached_property
    def batches(self) -> list[torch.Tensor]:
        size = self.source.batch_size
        if self.source.generated:
            return own_text(self.states, size)
        return batches(self.source.tokenize(self.tokenizer), size)

    @cached_property
    def states(self) -> Trajectory:
        return states_on(self.model, self.tokenizer, self.source, lambda: self.batches)


def _pruner(given: str | Pruner, options: Mapping[str, Any], seed: int) -> Pruner:
    if not isinstance(given, Pruner):
        return component("pruner", given, options, seed=seed)
    if options:
        raise ValueError(f"{', '.join(options)}: give options to the pruner itself, or its name in the place of it")
    return given


def _sparsity(pruner: Pruner, given: object) -> Sparsity:
    """Read the sparsity. Raises ValueError if there is none, or if the pruner does not take it."""
    if given is None:
        if pruner.accepts:
            wanted = " or ".join(KINDS[kind] for kind in pruner.accepts)
            raise ValueError(f"pruner={pruner.name} needs a sparsity: {wanted}")
        return parse(0)
    sparsity = parse(plain(given))
    if not pruner.accepts and not sparsity.is_zero:
        raise ValueError(f"pruner={pruner.name} removes nothing and takes no sparsity; leave out {sparsity.given}")
    if problem := unaccepted(pruner.name, pruner.accepts, sparsity):
        raise ValueError(problem)
    return sparsity


def _check(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    pruner: Pruner,
    source: CalibrationSet,
) -> None:
    """Refuse what does not go together before any work. Raises ValueError."""
    decoder = Decoder(model)
    if why := pruner.unsuited(model.config):
        raise ValueError(f"pruner {pruner.name} {why}")
    if not pruner.calibrated:
        return
    if tokenizer is None:
        raise ValueError(f"pruner={pruner.name} reads calibration text; give the tokenizer of the model")
    asked = {"stages": (), "calibration.length": source.length}
    if decoder.positions is not None and (found := too_long(asked, decoder.positions, calibrated=True)):
        raise ValueError("; ".join(found))


def _copied(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model without gradients. Raises ValueError if not all of it is in memory."""
    if is_offloaded(model):
        raise ValueError("weights of the model are on disk, so that it cannot be copied; give in_place=True")
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.grad = None
    return copied


def _decide(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    pruner: Pruner,
    sparsity: Sparsity,
    source: CalibrationSet,
    seed: int,
) -> Decision:
    """Decide without a store: every score is computed once and kept until the decision is there."""
    known: dict[str, pd.DataFrame] = {}
    context = Context(seed=seed)
    if tokenizer is not None:
        text = _Text(model, tokenizer, source)
        context = replace(context_of(pruner, source, lambda: text.batches, lambda: text.states), seed=seed)

    def scoring(setup: SharedSetup, gone: Dropped, candidates: Candidates) -> pd.DataFrame:
        layers = {kind: list(layers) for kind, layers in gone.items() if layers}
        key = json.dumps([layers, sorted(candidates)], sort_keys=True)
        if key not in known:
            mine = replace(context, candidates=candidates, setup=setup)
            known[key] = score(model, name_of(model), pruner, gone, mine)
        return known[key]

    return decide(model, pruner, sparsity, replace(context, changes=PackedChanges()), scoring)
