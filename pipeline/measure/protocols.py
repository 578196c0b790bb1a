"""Similarity, orthogonality and KL of captured states, per protocol, as tidy tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.common.terminal import Progress
from pipeline.config.schema import FREE_RUNNING, LAYER, TEACHER_FORCED
from pipeline.measure.base import Measure
from pipeline.measure.columns import INDEX
from pipeline.measure.finite import check_measures
from pipeline.measure.layerwise import Stream, measure_stream
from pipeline.measure.measures import as_table, columns_of, compare
from pipeline.model.finite import check_values
from pipeline.model.head import Head
from pipeline.model.structure import SUBLAYERS
from pipeline.model.trajectory import KEY, Trajectory

if TYPE_CHECKING:
    import torch

FINAL = "final"


def measure_protocols(
    dense: Trajectory,
    head: Head,
    temperatures: Sequence[float],
    unit: str,
    layers: pd.DataFrame | None = None,
    forced: torch.Tensor | None = None,
    pruned: Trajectory | None = None,
    extra: Sequence[Measure] = (),
) -> pd.DataFrame | None:
    """Return the measures of the protocols whose states are given, in one table; None if none are.

    ``layers`` are the measures of `measure_layers`, of which those of sublayers that the pruner's ``unit`` concerns are
    kept; ``forced`` are the final states (N, D) of the pruned model on the dense trajectory, ``pruned`` is its own.
    ``extra`` are further measures of positions.
    """
    frames = []
    if layers is not None:
        frames.append(layers[layers["sublayer"].isin(kinds_of(unit))])
    if forced is not None:
        frames.append(measure_teacher_forced(dense, forced, head, temperatures, extra))
    if pruned is not None:
        frames.append(measure_free_running(dense, pruned, head, temperatures, extra))
    return pd.concat(frames, ignore_index=True) if frames else None


def kinds_of(unit: str) -> Sequence[str]:
    """Return the kinds of sublayer to measure: a pruner that only drops attention says nothing about a dropped MLP."""
    return [unit] if unit in SUBLAYERS else SUBLAYERS


def measure_layers(
    dense: Trajectory,
    counterparts: torch.Tensor | None,
    head: Head,
    temperatures: Sequence[float],
    progress: Progress,
    norm: Callable[[torch.Tensor], torch.Tensor] | None = None,
    extra: Sequence[Measure] = (),
) -> pd.DataFrame:
    """Measure the layer protocol: the dense residual stream after each sublayer against its pruned counterpart.

    ``counterparts`` is (2L, N, D); None means that pruned sublayers add nothing, which leaves the stream as it was
    before them. ``head`` is the output projection, applied to the raw residual stream, or through the final ``norm``
    if that is given. ``extra`` are further measures, here and below.
    """
    assert dense.residual is not None
    check_values(dense.residual, "captured states", KEY)
    if counterparts is not None:
        check_values(counterparts, "counterparts of sublayers", KEY)
    stream = Stream(dense.residual, dense.before, dense.after, counterparts)
    values, frames = measure_stream(stream, head, temperatures, progress, norm, extra), []
    for index, one in enumerate(values):
        layer, kind = dense.places[index]
        place = {"protocol": LAYER, "layer": layer, "sublayer": kind}
        frames.append(_placed(as_table(one, temperatures, extra), dense.positions(), place, extra))
    return pd.concat(frames, ignore_index=True)


def measure_teacher_forced(
    dense: Trajectory,
    forced: torch.Tensor,
    head: Head,
    temperatures: Sequence[float],
    extra: Sequence[Measure] = (),
) -> pd.DataFrame:
    """Measure the teacher-forced protocol: final states of both models on the dense trajectory; ``forced`` is (N, D).

    ``layer`` is -1, ``sublayer`` is ``final``.
    """
    return _final(dense.final, forced, dense.positions(), TEACHER_FORCED, head, temperatures, extra)


def measure_free_running(
    dense: Trajectory,
    pruned: Trajectory,
    head: Head,
    temperatures: Sequence[float],
    extra: Sequence[Measure] = (),
) -> pd.DataFrame:
    """Measure the free-running protocol: final states of both models, each on its own trajectory, at equal steps.

    A prompt ends where the shorter of its continuations does. ``layer`` is -1, ``sublayer`` is ``final``.
    """
    rows, others = shared_rows(dense, pruned)
    positions = dense.positions()
    shared = [positions[row] for row in rows]
    return _final(dense.final[rows], pruned.final[others], shared, FREE_RUNNING, head, temperatures, extra)


def shared_rows(dense: Trajectory, pruned: Trajectory) -> tuple[list[int], list[int]]:
    """Return the rows of both trajectories at which both have a state, prompt by prompt and step by step."""
    there = {position: row for row, position in enumerate(pruned.positions())}
    both = [(row, there[position]) for row, position in enumerate(dense.positions()) if position in there]
    rows, others = (list(part) for part in zip(*both, strict=True))
    return rows, others


def _final(
    dense: torch.Tensor,
    pruned: torch.Tensor,
    positions: Sequence[tuple[str, int]],
    protocol: str,
    head: Head,
    temperatures: Sequence[float],
    extra: Sequence[Measure],
) -> pd.DataFrame:
    for states in (dense, pruned):
        check_values(states, "captured states", KEY)
    device = head.weight.device
    frame = compare(dense.to(device), pruned.to(device), head, temperatures, extra)
    place = {"protocol": protocol, "layer": -1, "sublayer": FINAL}
    return _placed(frame, positions, place, extra)


def side_by_side(dense: Trajectory, pruned: Trajectory) -> pd.DataFrame:
    """Return the generated tokens of both models: prompt, step, dense_token, pruned_token, dense_text, pruned_text.

    Beyond the end of the shorter continuation, its token is -1 and its text empty.
    """
    rows = []
    for i, name in enumerate(dense.names):
        for step in range(max(len(dense.tokens[i]), len(pruned.tokens[i]))):
            row: dict[str, object] = {"prompt": name, "step": step}
            for who, side in (("dense", dense), ("pruned", pruned)):
                there = step < len(side.tokens[i])
                row[f"{who}_token"] = side.tokens[i][step] if there else -1
                row[f"{who}_text"] = side.texts[i][step] if there else ""
            rows.append(row)
    columns = ["prompt", "step", "dense_token", "pruned_token", "dense_text", "pruned_text"]
    return pd.DataFrame(rows)[columns]


def _placed(
    frame: pd.DataFrame, positions: Sequence[tuple[str, int]], place: dict[str, object], extra: Sequence[Measure]
) -> pd.DataFrame:
    """Return the measures with their place; prompt name and step replace the position number.

    Raises ValueError if a measure is not finite.
    """
    prompts, steps = zip(*positions, strict=True)
    number = frame.pop("position").to_numpy(int)
    located = frame.assign(
        prompt=pd.Series(prompts).iloc[number].to_numpy(), step=pd.Series(steps).iloc[number].to_numpy(), **place
    )
    columns = columns_of(extra)
    return check_measures(located[[*INDEX, *columns]], columns, str(place["protocol"]), extra)
