from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.sparsity import exactly, parse
from pipeline.run.job_record import describe


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
        (0.1 + 0.2, "fraction", "0.3"),
        ("0.30000000000000004", "fraction", "0.3"),
        (1 - 0.9, "fraction", "0.1"),
        (0.7 + 0.2 + 0.1, "fraction", "1.0"),
        (1 + 2**-52, "fraction", "1.0"),
        ("0.123456789012", "fraction", "0.123456789012"),
        (1e-9, "fraction", "1e-09"),
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


@given(st.integers(0, 10**6), st.integers(1, 100))
def test_units_of_a_fraction_are_rounded(millionths, total):
    fraction = millionths / 10**6
    assert parse(fraction).units_of(total) == round(fraction * total)


@given(st.integers(1, 999), st.sampled_from([1000, 100, 10]))
def test_what_sums_and_multiples_miss_by_is_no_other_sparsity(k, parts):
    """``k`` steps of a tenth (hundredth, thousandth), added up or multiplied, are the literal."""
    k = k % parts or 1
    literal = f"{k / parts:.3f}".rstrip("0")
    for value in (sum([1 / parts] * k), k * (1 / parts), 1 - (parts - k) / parts, literal):
        assert parse(value) == parse(str(value)) == parse(literal)
        assert parse(value).given == literal


@given(st.floats(0, 1))
def test_the_spelling_means_the_same_again(fraction):
    assert parse(parse(fraction).given) == parse(fraction)
    assert parse(fraction).fraction == pytest.approx(fraction, rel=1e-11)


@given(st.floats(0, 1))
def test_a_computed_fraction_is_taken_as_it_is(fraction):
    assert exactly(fraction).fraction == fraction


def test_a_range_on_the_command_line_meets_what_is_written_by_hand():
    parser = OverridesParser.create()
    texts = list(parser.parse_override("sparsity=range(0.1,0.6,0.1)").sweep_string_iterator())
    assert "0.30000000000000004" in texts
    found = [parse(parser.parse_override(f"sparsity={text}").value()).given for text in texts]
    assert found == ["0.1", "0.2", "0.3", "0.4", "0.5"]


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


def test_one_job_for_one_sparsity(make_settings):
    """However it is written: the same sparsity, the same configuration in records, the same job."""
    written = [make_settings(f"sparsity={text}") for text in ("0.3", "0.30", "0.30000000000000004")]
    assert len({describe(settings).job for settings in written}) == 1
    assert [settings.flat["sparsity"] for settings in written] == [0.3] * 3
