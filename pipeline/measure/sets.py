"""Further measures of sets of states, per protocol, layer and sublayer, as a tidy table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pandas as pd
import torch

from pipeline.config.schema import FREE_RUNNING, LAYER, TEACHER_FORCED
from pipeline.measure.base import SetMeasure, checked
from pipeline.measure.columns import SET_COLUMNS
from pipeline.measure.finite import check_measures
from pipeline.measure.protocols import FINAL, shared_rows
from pipeline.model.finite import check_values
from pipeline.model.trajectory import KEY, Trajectory

# A protocol, a layer, a sublayer, and the states of both models there.
Pair = tuple[str, int, str, torch.Tensor, torch.Tensor]


def layer_pairs(dense: Trajectory, counterparts: torch.Tensor | None, kinds: Collection[str]) -> Iterator[Pair]:
    """Yield the dense and pruned states (N, D) after each sublayer of some kinds.

    ``counterparts`` is (2L, N, D); None means that pruned sublayers leave the stream as it was before them.
    """
    assert dense.residual is not None
    for index, (before, after) in enumerate(zip(dense.before, dense.after, strict=True)):
        pruned = dense.residual[before] if counterparts is None else counterparts[index]
        layer, sublayer = dense.places[index]
        if sublayer in kinds:
            yield LAYER, layer, sublayer, dense.residual[after], pruned


def forced_pair(dense: Trajectory, forced: torch.Tensor) -> Pair:
    """Return the final states (N, D) of both models on the dense trajectory."""
    return TEACHER_FORCED, -1, FINAL, dense.final, forced


def free_pair(dense: Trajectory, pruned: Trajectory) -> Pair:
    """Return the final states (n, D) of both models, each on its own trajectory, at equal steps."""
    rows, others = shared_rows(dense, pruned)
    return FREE_RUNNING, -1, FINAL, dense.final[rows], pruned.final[others]


@torch.inference_mode()
def measure_sets(measures: Sequence[SetMeasure], pairs: Iterator[Pair]) -> pd.DataFrame:
    """Compute the measures of each pair of sets: ``SET_COLUMNS``, a row for each measure's column.

    ``n`` is the number of states in a set. Raises ValueError if states or measures are not finite.
    """
    rows = []
    for protocol, layer, sublayer, dense, pruned in pairs:
        for states in (dense, pruned):
            check_values(states, "captured states", KEY)
        for measure in measures:
            found = checked(measure, measure.compute(dense, pruned))
            place = (protocol, layer, sublayer, len(dense))
            rows += [(*place, name, _number(measure, name, found[name])) for name in measure.columns]
    frame = pd.DataFrame(rows, columns=list(SET_COLUMNS))
    for (name, protocol), own in frame.groupby(["measure", "protocol"], sort=False):
        check_measures(own.rename(columns={"value": name}), [name], protocol, measures)
    return frame


def _number(measure: SetMeasure, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"measure {measure.name}: {name} is a {type(value).__name__}; return a number") from error
