"""Which decisions lie within the rounding of log-likelihoods."""

from __future__ import annotations

import pytest

from pipeline.evaluate.likelihoods import log_likelihoods
from pipeline.evaluate.rounding import is_close, rounding


@pytest.mark.parametrize(
    ("values", "lengths", "off", "close"),
    [
        # Each of both may be off.
        ([-3.0, -3.2, -9.0], [1, 1, 1], 0.11, True),
        ([-3.0, -3.2, -9.0], [1, 1, 1], 0.09, False),
        # Divided by their lengths, -1.0 and -1.5; a rounding of 0.8 moves them by 0.2 and 0.4.
        ([-4.0, -3.0], [4, 2], 0.8, True),
        ([-4.0, -3.0], [4, 2], 0.8 / 1.3, False),
        ([-2.0], [1], 9.0, False),
        ([-2.0, -2.0], [1, 1], 0.0, True),
    ],
)
def test_a_decision_is_close_where_rounding_may_turn_it(values, lengths, off, close):
    assert is_close(values, lengths, off) is close


def test_rounding_is_the_largest_difference_to_requests_asked_alone(make_model):
    model = make_model()
    pairs = [([5, 6, number], [7, 8]) for number in range(10, 40)] + [([5], [])]
    answers = log_likelihoods(model, pairs, 8)
    assert rounding(model, pairs, answers) < 1e-5
    moved = [(value + 0.25, greedy) for value, greedy in answers]
    assert rounding(model, pairs, moved) == pytest.approx(0.25, abs=1e-5)
    # bfloat16 has eight bits: a log-likelihood of two tokens of a random model is about -11.
    half = model.bfloat16()
    assert 0 < rounding(half, pairs, answers) < 0.5
    assert rounding(half, [([5], [])], [(0.0, True)]) == 0
