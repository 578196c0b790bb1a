"""Measures of perturbations whose squares overflow or vanish in float32, and measures that are not numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch
from naive import naive

from pipeline.capture.options import Question
from pipeline.measure.base import Measure
from pipeline.measure.finite import check_measures
from pipeline.measure.measures import COLUMNS, compare
from pipeline.measure.options import measure_options
from pipeline.measure.protocols import measure_free_running
from pipeline.model.head import Head
from pipeline.model.trajectory import Trajectory

TEMPERATURES = (0.3, 0.5, 0.7, 1.0, 1.3)


def exact(z: list[float], delta: list[float], temperature: float) -> dict[str, float]:
    """The measures in probability space with fifty digits."""
    with mpmath.workdps(50):
        p, q = (
            [mpmath.exp(mpmath.mpf(x) / temperature) for x in row]
            for row in (z, [a + b for a, b in zip(z, delta, strict=True)])
        )
        p, q = ([x / mpmath.fsum(row) for x in row] for row in (p, q))
        lengths = [mpmath.sqrt(mpmath.fsum(x * x for x in row)) for row in (p, q)]
        mean = mpmath.fsum(a * d for a, d in zip(p, delta, strict=True))
        return {
            "kl": float(mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True))),
            "cos_p": float(mpmath.fsum(a * b for a, b in zip(p, q, strict=True)) / lengths[0] / lengths[1]),
            "var_p": float(mpmath.fsum(a * (d - mean) ** 2 for a, d in zip(p, delta, strict=True))),
        }


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("below", "up"), [(-12.0, 15.4), (-12.0, 15.5), (-30.0, 33.0), (-64.0, 65.0), (-90.0, 95.0)])
def test_no_growth_overflows_alone_but_their_squares_do_in_the_sum(below, up, temperature):
    z, delta = [0.0, *[below] * 5], [0.0, *[up] * 5]
    table = compare(torch.tensor([z]), torch.tensor([z]) + torch.tensor([delta]), Head(torch.eye(6)), [temperature])
    for name, value in exact(z, (np.float32(z) + np.float32(delta) - np.float32(z)).tolist(), temperature).items():
        assert table[name].item() == pytest.approx(value, rel=2e-5, abs=1e-9), name


@pytest.mark.parametrize("vocabulary", [2, 6, 300])
@pytest.mark.parametrize("scale", [1e-22, 1e-12, 10.0, 100.0, 1e4, 1e10, 1e19, 1e25])
@pytest.mark.parametrize("logits", [1e-25, 1e-3, 10.0, 1e4, 1e20])
def test_sizes_at_both_ends_of_float32(vocabulary, scale, logits):
    """Everything that a double tells apart, at every temperature; what cancels has the rounding of its terms."""
    generator = torch.Generator().manual_seed(vocabulary)
    z = logits * torch.randn(5, vocabulary, generator=generator)
    moved = z + scale * torch.randn(5, vocabulary, generator=generator)
    head = Head(torch.eye(vocabulary))
    for temperature in TEMPERATURES:
        found, expected = compare(z, moved, head, [temperature]), naive(z, moved, head, temperature)
        size = float(z.abs().max()) / temperature
        for name in COLUMNS:
            value, right = found[name].to_numpy(), expected[name]
            assert np.isfinite(value).all(), (name, temperature)
            if (
                name in ("entropy", "margin", "top1", "cos_p", "kl", "var_p", "var_r", "est_cos_p", "est_kl")
                and size > 100
            ):
                continue  # float32 logits of that size do not say what the probabilities are
            if name == "tv" and max(size, float(moved.abs().max()) / temperature) > 100:
                continue  # it takes the probabilities of both models
            value = 1 - value if "cos" in name else value
            if name.startswith("par"):
                value, right = np.sqrt(value), np.sqrt(right)
            # The part along is a sum in which what lies across cancels.
            absolute = 1e-6 * np.sqrt(expected[name.replace("par", "orth")]) if name.startswith("par") else 1e-12
            absolute = 1e-5 if name in ("entropy", "margin") else absolute
            np.testing.assert_allclose(value, right, rtol=1e-4, atol=np.max(absolute), err_msg=f"{name} {temperature}")


def test_divergences_are_never_negative():
    generator = torch.Generator().manual_seed(0)
    z = 40 * torch.randn(2000, 7, generator=generator)
    moved = z + 1e-5 * torch.randn(z.shape, generator=generator)
    table = compare(z, moved, Head(torch.eye(7)), TEMPERATURES)
    assert (table.kl >= 0).all()


def trajectory(final: torch.Tensor, name: str = "a prompt") -> Trajectory:
    tokens = [list(range(len(final)))]
    return Trajectory([name], len(final), [[1]], tokens, [["x"] * len(final)], final, None)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (torch.zeros(4), "protocol free_running: measure cos_h is nan at prompt a prompt, step 2, .*1 of 3"),
        (torch.tensor([1.0, float("nan"), 0, 0]), "captured states are not finite"),
    ],
)
def test_a_measure_that_is_not_finite_fails_its_table(bad, said):
    final, head = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), Head(torch.eye(4))
    spoilt = final.clone()
    spoilt[2] = bad
    with pytest.raises(ValueError, match=said):
        measure_free_running(trajectory(spoilt), trajectory(final), head, [1.0])


def test_the_message_of_options_names_the_question(tokenizer):
    """A question with one option has no rival, so that its margin is infinite."""
    question, states = Question("q-1", "probe", [1], [2], ["a"], 0), torch.randn(2, 8)
    head = Head(torch.randn(40, 8, generator=torch.Generator().manual_seed(1)))
    with pytest.raises(ValueError, match="protocol options: measure margin_dense is .*inf at prompt q-1, set options"):
        measure_options([question], states[:1], states[1:], head, [1.0], tokenizer, 0)


def test_finite_tables_come_back_as_they_are():
    frame = pd.DataFrame({"prompt": ["a"], "kl": [1.0], "note": [np.nan]})
    assert check_measures(frame, ["kl"], "layer") is frame
    with pytest.raises(ValueError, match="measure kl is inf at prompt a,"):
        check_measures(frame.assign(kl=np.inf), ["kl"], "layer")


@dataclass(frozen=True)
class Logarithm(Measure):
    columns: ClassVar[tuple[str, ...]] = ("log_kl",)


def test_a_value_of_ones_own_measure_is_not_called_an_overflow_of_states():
    frame, own = (
        pd.DataFrame({"prompt": ["a", "b"], "kl": [1.0, 0.0], "log_kl": [0.0, -np.inf]}),
        [Logarithm("logarithm")],
    )
    with pytest.raises(
        ValueError, match="measure logarithm returned -inf for log_kl at prompt b, .* Logarithm.compute"
    ):
        check_measures(frame, ["kl", "log_kl"], "layer", own)
    # States that overflow make every measure infinite.
    with pytest.raises(ValueError, match="measure kl is inf at prompt b, .* overflow"):
        check_measures(frame.assign(kl=[1.0, np.inf], log_kl=np.nan), ["kl", "log_kl"], "layer", own)
