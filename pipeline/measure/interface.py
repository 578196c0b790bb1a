"""Measure how far a pruned model in memory deviates from the dense one: the interface for Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.capture.counterparts import capture_counterparts, has_counterparts
from pipeline.common.terminal import progress
from pipeline.config.by_name import settings
from pipeline.config.probes import Probe, probes_of, read_probes
from pipeline.config.schema import (
    FINAL_NORM,
    FREE_RUNNING,
    LAYER,
    OPTIONS,
    RAW,
    TEACHER_FORCED,
    CaptureConfig,
    MeasureConfig,
    temperatures_problem,
)
from pipeline.measure.base import Measure
from pipeline.measure.extras import extra_problems
from pipeline.measure.further import further_measure
from pipeline.measure.protocols import measure_layers, measure_protocols
from pipeline.model.borrowed import borrowed
from pipeline.model.decoder import Decoder
from pipeline.model.generation import GREEDY, Decoding
from pipeline.model.head import Head
from pipeline.model.proof import head_of
from pipeline.model.trajectory import Trajectory, capture_forced, capture_trajectory
from pipeline.prune.decision import Decision
from pipeline.prune.interface import Pruned, name_of
from pipeline.prune.pruned_model import check_writes_text
from pipeline.prune.vet import vet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Prompts = Iterable[str | Mapping[str, Any] | Probe]


def measure(
    dense: PreTrainedModel,
    pruned: Pruned | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts | Path | None = None,
    protocols: Sequence[str] = (LAYER, TEACHER_FORCED, FREE_RUNNING),
    *,
    steps: int = 24,
    temperatures: Sequence[float] = (1.0,),
    decoding: str = GREEDY,
    temperature: float = 1.0,
    readout: str = RAW,
    extra: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Measure similarity, orthogonality and KL between a dense and a pruned model, position by position.

    The numbers are those of the same job on the command line for models in ``capture.dtype``; states and logits are
    measured in float32 at least. ::

        measures = measure(model, pruned, tokenizer, ["Why is the sky blue?"], steps=16, temperatures=[0.5, 1.0])
        measures.groupby(["protocol", "temperature"])[["cos_h", "cos_z", "cos_p", "kl"]].mean()
        measures.query("protocol == 'layer'").groupby(["layer", "sublayer"])["cos_p"].mean()

    Args:
        dense: the model before pruning.
        pruned: the result of `pipeline.api.prune`; a model by itself for protocols other than ``layer``.
        tokenizer: the tokenizer of both.
        prompts: texts, or mappings with ``text`` and, if wanted, ``name``, ``format``, ``steps``, ``options`` and
            ``answer``; a path to a .txt or .jsonl file of them; the built-in twelve by default.
        protocols: which two states are compared. ``layer``: one sublayer at a time is pruned, on the dense model's own
            inputs; ``teacher_forced``: the pruned model reads what the dense one wrote; ``free_running``: each reads
            what it wrote itself.
        steps: how many tokens each prompt is continued at most.
        temperatures: softmax temperatures of the measures of probabilities.
        decoding, temperature: ``greedy``, or ``sample`` at a temperature.
        readout: how logits are read between the blocks: ``raw``, or through the ``final_norm``.
        extra: further measures of positions, by their names in ``conf/measures``.
        seed: where random numbers start, within this call alone.

    Returns:
        One row a position and temperature with the columns of ``measures.parquet`` between those of the job:
        ``protocol``, ``prompt``, ``step``, ``layer`` (-1 for final states), ``sublayer``, ``temperature``, the measures
        and the dense model's confidence.

    Raises:
        ValueError: for values of a wrong type, models that do not belong together or write no text, prompts that are
            too long, and measures that are not finite.
    """
    given: dict[str, Any] = {"protocols": protocols, "steps": steps, "decoding": decoding, "temperature": temperature}
    capture = settings("capture", **given)
    _check_protocols(capture.protocols, pruned)
    wanted = settings("measure", temperatures=temperatures, readout=readout, extra=extra)
    if problem := temperatures_problem(wanted.temperatures):
        raise ValueError(problem)
    further, probes, model = _further(wanted.extra), probes_given(prompts), pruned_beside(dense, pruned)
    with borrowed([dense, model], tokenizer, seed):
        for each in (dense, model):
            vet(each, name_of(each))
        return _measured(dense, pruned, tokenizer, probes, capture, wanted, further, seed)


def _check_protocols(protocols: Sequence[str], pruned: Pruned | PreTrainedModel) -> None:
    if OPTIONS in protocols:
        raise ValueError("the options protocol has tables of its own: see pipeline.api.measure_options")
    if LAYER in protocols and not isinstance(pruned, Pruned):
        raise ValueError("the layer protocol needs to know what was pruned; give the result of pipeline.api.prune")


def _measured(
    dense: PreTrainedModel,
    pruned: Pruned | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[Probe],
    capture: CaptureConfig,
    wanted: MeasureConfig,
    further: Sequence[Measure],
    seed: int,
) -> pd.DataFrame:
    """Capture both models under the protocols, one after the other, and measure their states."""
    model = pruned.model if isinstance(pruned, Pruned) else pruned
    how = Decoding(capture.decoding, capture.temperature, seed)
    head = head_of(Decoder(dense))
    base = capture_trajectory(dense, tokenizer, probes, capture.steps, LAYER in capture.protocols, how)
    layers = forced = own = None
    if LAYER in capture.protocols:
        assert isinstance(pruned, Pruned)
        layers = _layers(dense, pruned.decision, base, head, wanted, further)
    if TEACHER_FORCED in capture.protocols:
        forced = capture_forced(model, base)
    if FREE_RUNNING in capture.protocols:
        own = capture_trajectory(model, tokenizer, probes, capture.steps, False, how)
    unit = pruned.pruner.unit if isinstance(pruned, Pruned) else ""
    measures = measure_protocols(base, head, wanted.temperatures, unit, layers, forced, own, further)
    assert measures is not None
    return measures


def probes_given(prompts: Prompts | Path | None) -> tuple[Probe, ...]:
    """Return the probes for prompts in memory or in a file, or the built-in ones."""
    return read_probes(prompts) if prompts is None or isinstance(prompts, Path) else probes_of(prompts)


def pruned_beside(dense: PreTrainedModel, pruned: Pruned | PreTrainedModel) -> PreTrainedModel:
    """Return the pruned model. Raises ValueError unless both write text and the other one is its dense model."""
    model = pruned.model if isinstance(pruned, Pruned) else pruned
    if model is dense:
        raise ValueError("both models are the same one; give the model before pruning, and prune without in_place=True")
    for each in (dense, model):
        check_writes_text(each, name_of(each))
    blocks = len(Decoder(dense).blocks)
    if isinstance(pruned, Pruned) and blocks != (before := len(pruned.decision.achieved_by_layer)):
        raise ValueError(f"the dense model has {blocks} blocks, but that which was pruned had {before}; give that one")
    return model


def _layers(
    dense: PreTrainedModel,
    decision: Decision,
    base: Trajectory,
    head: Head,
    wanted: MeasureConfig,
    further: Sequence[Measure],
) -> pd.DataFrame:
    """Measure the layer protocol; units that are dropped, with nothing changed, need no second pass."""
    norm = Decoder(dense).final_norm if wanted.readout == FINAL_NORM else None
    states = capture_counterparts(dense, decision, base, progress) if has_counterparts(decision) else None
    return measure_layers(base, states, head, wanted.temperatures, progress, norm, further)


def _further(names: Sequence[str]) -> list[Measure]:
    """Return further measures in the order of the command line. Raises ValueError for one of sets of states."""
    if problems := extra_problems(names):
        raise ValueError("; ".join(problems))
    found: list[Measure] = []
    for name in sorted(names):
        made = further_measure(name)
        if not isinstance(made, Measure):
            raise ValueError(f"extra: {name} measures sets of states and has a table of its own; give it to a job")
        found.append(made)
    return found
