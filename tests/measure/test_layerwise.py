"""The streaming engine of the layer protocol against a plain loop over sublayers in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from naive import DEVIATIONS, assert_agrees, naive
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.measure import measures as module
from pipeline.measure.layerwise import _AFRESH, Stream, measure_stream
from pipeline.measure.measures import COLUMNS, as_table, compare
from pipeline.model.head import Head

WIDTH, VOCABULARY = 24, 300
TEMPERATURES = [0.3, 1.0, 1.3]
# Places of the states before and after each sublayer, for so many blocks.
LAYOUTS = {
    "chained": lambda blocks: (range(2 * blocks), range(1, 2 * blocks + 1)),
    "parallel": lambda blocks: (
        [3 * block for block in range(blocks) for _ in range(2)],
        [3 * block + one for block in range(blocks) for one in (1, 2)],
    ),
    "normalised": lambda blocks: (range(0, 4 * blocks, 2), range(1, 4 * blocks, 2)),
}


def quiet(items, what, total):
    return items


def stream(
    kind: str = "chained", blocks: int = 3, positions: int = 7, size: float = 1.0, step: float = 0.3, pruned=None
) -> Stream:
    """A residual stream that grows by random steps, with counterparts that are off by ``pruned``."""
    generator = torch.Generator().manual_seed(11)
    before, after = (tuple(places(blocks)) for places in (lambda b: LAYOUTS[kind](b)[0], lambda b: LAYOUTS[kind](b)[1]))
    steps = step * torch.randn(max(after) + 1, positions, WIDTH, generator=generator)
    steps[0] /= step
    residual = size * steps.cumsum(0)
    noise = torch.randn(len(after), positions, WIDTH, generator=generator)
    counterparts = None if pruned is None else residual[list(after)] + size * pruned * noise
    return Stream(residual, before, after, counterparts)


def head(size: float = 1.0, bias: bool = False, cap: float | None = None) -> Head:
    generator = torch.Generator().manual_seed(2)
    weight = size * torch.randn(VOCABULARY, WIDTH, generator=generator)
    return Head(weight, torch.randn(VOCABULARY, generator=generator) if bias else None, cap)


def check(around: Stream, projection: Head, norm=None, exact_norm=None, rtol: float = 1e-5) -> None:
    """Every column of every sublayer."""
    measured = measure_stream(around, projection, TEMPERATURES, quiet, norm)
    assert measured.shape == (len(around.after), around.residual.shape[1], len(TEMPERATURES), len(COLUMNS))
    assert measured.dtype == torch.float64
    for index, (before, after) in enumerate(zip(around.before, around.after, strict=True)):
        dense = around.residual[after]
        pruned = around.residual[before] if around.counterparts is None else around.counterparts[index]
        for place, temperature in enumerate(TEMPERATURES):
            found = dict(zip(COLUMNS, measured[index, :, place].T.numpy(), strict=True))
            expected = naive(dense, pruned, projection, temperature, exact_norm)
            largest = logit_scale(around, index, projection, exact_norm) / temperature
            assert_agrees(found, expected, largest, rtol, where=f"sublayer {index}, T={temperature}")


def logit_scale(around: Stream, index: int, projection: Head, norm=None) -> float:
    """Of what size the logits are whose rounding counts at a sublayer.

    Without counterparts logits are carried on from sublayer to sublayer, with the rounding of each step, until they
    are projected afresh.
    """
    begin = index if around.counterparts is not None else index - index % _AFRESH
    states = around.residual[around.before[begin] : around.after[index] + 1].double()
    states = states if norm is None else norm(states)
    bias = 0.0 if projection.bias is None else float(projection.bias.abs().max())
    size = float(states.norm(dim=-1).max()) * float(projection.weight.double().norm(dim=-1).max()) + bias
    return size * (1 + index - begin) ** 0.5


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("pruned", [None, 0.1])
def test_every_layout_and_both_kinds_of_pruning(kind, pruned):
    check(stream(kind, pruned=pruned), head())


@pytest.mark.parametrize("step", [1e-4, 1e-2, 3.0, 30.0])
def test_dropped_sublayers_of_any_size(step):
    """Updates so small that KL is near 1e-9, and so large that nothing of the stream before is left."""
    check(stream(step=step), head(0.3))


@pytest.mark.parametrize("pruned", [1e-5, 1e-3, 1.0, 30.0])
def test_counterparts_of_any_size(pruned):
    check(stream(pruned=pruned), head(0.3))


@pytest.mark.parametrize("size", [1e-3, 30.0])
def test_flat_distributions_and_logits_that_range_over_hundreds(size):
    check(stream(size=size), head())
    check(stream(size=size, pruned=0.05), head())


def test_logits_are_projected_afresh_before_rounding_errors_gather():
    """Also where the first states are a thousand times larger than the later ones."""
    around = stream(blocks=20, step=0.5)
    check(around, head())
    around.residual[:4] *= 1000
    check(around, head())


@pytest.mark.parametrize("pruned", [None, 0.2])
@pytest.mark.parametrize("cap", [None, 6.0])
def test_bias_and_cap(pruned, cap):
    check(stream(pruned=pruned), head(bias=True, cap=cap), rtol=1e-4 if cap else 1e-5)


@pytest.mark.parametrize("pruned", [None, 0.2])
@pytest.mark.parametrize("kind", ["chained", "parallel"])
def test_readout_through_the_final_norm(kind, pruned):
    """Logits are those of the normalised states; measures in h stay those of the raw ones."""
    norm = torch.nn.RMSNorm(WIDTH)
    torch.nn.init.uniform_(norm.weight, 0.5, 2.0, generator=torch.Generator().manual_seed(4))
    exact = torch.nn.RMSNorm(WIDTH).double()
    exact.load_state_dict(norm.state_dict())
    with torch.no_grad():
        check(stream(kind, size=20.0, pruned=pruned), head(), norm, exact, rtol=1e-4)


@pytest.mark.parametrize("pruned", [None, 0.2])
def test_many_blocks_and_tiles_of_positions_are_put_together_in_order(monkeypatch, pruned):
    around = stream(positions=23, pruned=pruned)
    monkeypatch.setattr(module, "_BLOCK", 5 * VOCABULARY)
    monkeypatch.setattr(module, "TILE", 2 * VOCABULARY)
    check(around, head())


def test_it_agrees_with_comparing_each_pair_of_states():
    around = stream(pruned=0.3)
    measured = measure_stream(around, head(), TEMPERATURES, quiet)
    for index, after in enumerate(around.after):
        alone = compare(around.residual[after], around.counterparts[index], head(), TEMPERATURES)
        np.testing.assert_array_equal(as_table(measured[index], TEMPERATURES), alone)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_counterparts_that_are_the_dense_states_measure_exactly_zero(kind):
    around = stream(kind)
    same = Stream(around.residual, around.before, around.after, around.residual[list(around.after)].clone())
    for projection in (head(), head(bias=True, cap=3.0)):
        measured = measure_stream(same, projection, TEMPERATURES, quiet)
        for name in DEVIATIONS:
            assert (measured[..., COLUMNS.index(name)] == (1.0 if "cos" in name else 0.0)).all(), name


def test_sublayers_that_add_nothing_measure_exactly_zero():
    residual = stream().residual[:1].expand(7, -1, -1)
    measured = measure_stream(Stream(residual, tuple(range(6)), tuple(range(1, 7))), head(), TEMPERATURES, quiet)
    for name in DEVIATIONS:
        assert (measured[..., COLUMNS.index(name)] == (1.0 if "cos" in name else 0.0)).all(), name


def test_progress_is_told_of_every_sublayer_of_every_block(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 3 * VOCABULARY)
    seen: list[tuple[int, int]] = []

    def counted(items, what, total):
        for number, item in enumerate(items, 1):
            yield item
            seen.append((number, total))

    measure_stream(stream(positions=7), head(), [1.0], counted)
    assert seen[-1] == (18, 18)  # three blocks of positions, six sublayers


class Largest(TorchDispatchMode):
    """Notes how many entries the largest floating-point result of any operation has."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.entries = max(self.entries, tensor.numel())
        return result


@pytest.mark.parametrize("pruned", [None, 0.2])
def test_memory_does_not_grow_with_positions(monkeypatch, pruned):
    """No tensor is larger than one block of logits, while all logits would be ten times that."""
    projection = Head(torch.randn(4000, WIDTH, generator=torch.Generator().manual_seed(0)))
    block = 32 * 4000
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "TILE", block // 8)
    around = stream(blocks=1, positions=320, pruned=pruned)
    with Largest() as largest:
        measure_stream(around, projection, [1.0], quiet)
    assert largest.entries == block
    with Largest() as largest:
        compare(around.residual[0], around.residual[1], projection, [1.0])
    assert largest.entries == block
