from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sparsity import parse


@pytest.mark.parametrize(
    ("value", "kind", "spelling"),
    [
        (0.4, "fraction", "0.4"),
        ("0.40", "fraction", "0.4"),
        (1.0, "fraction", "1.0"),
        (8, "units", "8"),
        ("8", "units", "8"),
        ("2:4", "pattern", "2:4"),
        ("2of4", "pattern", "2:4"),
        ("4 OF 8", "pattern", "4:8"),
        (0, "fraction", "0"),
        (0.0, "fraction", "0"),
    ],
)
def test_readings(value, kind, spelling):
    sparsity = parse(value)
    assert (sparsity.kind, sparsity.given) == (kind, spelling)
    assert sparsity.is_zero == (float(value) == 0 if kind == "fraction" else False)


@pytest.mark.parametrize("value", [1.5, -0.1, "4:2", "4:4", "0:4", "many", True, None, [0.1], "nan", "", "1e400"])
def test_what_is_no_sparsity_says_so(value):
    with pytest.raises(ValueError, match="sparsity="):
        parse(value)


def test_a_percentage_gets_a_hint():
    with pytest.raises(ValueError, match="write 0.405"):
        parse(40.5)


@given(st.floats(0, 1), st.integers(1, 100))
def test_units_of_a_fraction_are_rounded(fraction, total):
    assert parse(fraction).units_of(total) == round(fraction * total)


@given(st.integers(1, 50), st.integers(1, 50))
def test_units_are_taken_as_they_are(units, total):
    if units <= total:
        assert parse(units).units_of(total) == units
    else:
        with pytest.raises(ValueError, match="only"):
            parse(units).units_of(total)


@given(
    st.one_of(
        st.text(max_size=8), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers(), max_size=2)
    )
)
def test_any_value_parses_or_is_refused_in_words(value):
    try:
        sparsity = parse(value)
    except ValueError as error:
        assert str(error).startswith("sparsity=")
    else:
        assert parse(sparsity.given) == sparsity
