"""Similarity, orthogonality and KL of captured states, per protocol, as one tidy table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from pipeline.capture import Trajectory
from pipeline.console import Progress
from pipeline.decoder import SUBLAYERS
from pipeline.measures.compare import COLUMNS, Head, compare

INDEX = ("protocol", "prompt", "step", "layer", "sublayer", "temperature")
FINAL = "final"


def measure_layers(
    dense: Trajectory,
    counterparts: torch.Tensor | None,
    head: Head,
    temperatures: Sequence[float],
    progress: Progress,
) -> pd.DataFrame:
    """Layer protocol: the residual stream after each sublayer, dense against that sublayer's pruned counterpart.

    ``counterparts`` is (2L, N, D); None means that the counterpart of a sublayer is nothing, so that the stream
    stays as it was before it. ``head`` is the output projection, applied to the raw residual stream.
    """
    assert dense.residual is not None
    frames, total = [], len(dense.after)
    for index in progress(range(total), "measure, sublayer by sublayer", total):
        after = dense.residual[dense.after[index]].to(head.weight.device)
        pruned = dense.residual[dense.before[index]] if counterparts is None else counterparts[index]
        frame = compare(after, pruned.to(head.weight.device), head, temperatures)
        place = {"protocol": "layer", "layer": index // 2, "sublayer": SUBLAYERS[index % 2]}
        frames.append(_locate(frame, dense.positions()).assign(**place))
    return pd.concat(frames, ignore_index=True)[[*INDEX, *COLUMNS]]


def measure_free_running(
    dense: Trajectory, pruned: Trajectory, head: Head, temperatures: Sequence[float]
) -> pd.DataFrame:
    """Free-running protocol: final states of both models, each on its own trajectory, at equal steps.

    A prompt ends where the shorter of both continuations does. ``layer`` is -1, ``sublayer`` is ``final``.
    """
    positions = dense.positions()
    there = {position: row for row, position in enumerate(pruned.positions())}
    both = [(row, there[position]) for row, position in enumerate(positions) if position in there]
    rows, others = (list(part) for part in zip(*both, strict=True))
    frame = compare(
        dense.final[rows].to(head.weight.device), pruned.final[others].to(head.weight.device), head, temperatures
    )
    place = {"protocol": "free_running", "layer": -1, "sublayer": FINAL}
    return _locate(frame, [positions[row] for row in rows]).assign(**place)[[*INDEX, *COLUMNS]]


def side_by_side(dense: Trajectory, pruned: Trajectory) -> pd.DataFrame:
    """Generated tokens of both models: prompt, step, dense_token, pruned_token, dense_text, pruned_text.

    The longer continuation goes on alone; the other's token is then -1 and its text empty.
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


def _locate(frame: pd.DataFrame, positions: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """Replace the position number by prompt name and step."""
    prompts, steps = zip(*positions, strict=True)
    number = frame.pop("position").to_numpy(int)
    return frame.assign(
        prompt=pd.Series(prompts).iloc[number].to_numpy(), step=pd.Series(steps).iloc[number].to_numpy()
    )
