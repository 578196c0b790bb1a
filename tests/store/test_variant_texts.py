"""Texts that tell variants of a pruner apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import chosen

from pipeline.tables.labels import Facts, option_texts


@pytest.mark.parametrize(
    ("variants", "texts"),
    [
        ([({"bits": 3}, ["bits"]), ({"bits": 4}, [])], ["3 bits", "4 bits"]),
        ([({"bits": 4}, [])], [""]),
        ([({"calibration.families": ["a", "b", "c"]}, ["calibration.families"])], ["3 families"]),
        ([({"calibration.families": ["a", "b"]}, ["calibration.families"])], ["families a, b"]),
        ([({"calibration.name": "wiki", "calibration.sequences": 4}, ["calibration.name"])], ["wiki"]),
        (
            [({"calibration.name": "news", "calibration.sequences": n, "calibration.length": 32}, []) for n in (8, 16)],
            ["8×32", "16×32"],
        ),
        (
            [
                ({"calibration.name": "news", "calibration.sequences": 8, "calibration.field": "text"}, []),
                ({"calibration.name": "trajectories", "calibration.sequences": 4}, ["calibration.name"]),
            ],
            ["news", "trajectories"],
        ),
        ([({"calibration.name": "file", "calibration.path": f"/a/{n}.txt"}, []) for n in "xy"], ["x.txt", "y.txt"]),
        (
            [({"lazy": True, "power": 1.5}, ["power"]), ({"lazy": False, "power": 1.0}, [])],
            ["lazy, power 1.5", "no lazy, power 1.0"],
        ),
    ],
)
def test_texts_name_what_differs_or_was_changed(variants, texts):
    facts = [Facts(str(n), "pruner", "0.5", options, changed) for n, (options, changed) in enumerate(variants)]
    assert list(option_texts(facts).values()) == texts


@chosen()
@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["0.2", "2:4"]), st.text(max_size=4)), max_size=6))
def test_no_two_variants_of_a_pruner_and_sparsity_have_the_same_text(rows):
    """Whatever names and values hold: one that options do not tell apart is called after its id."""
    facts = [Facts(f"{n:016x}"[::-1], pruner, word, {"text": text}, []) for n, (pruner, word, text) in enumerate(rows)]
    texts = option_texts(facts)
    named = [(own.pruner, own.sparsity, texts[own.variant_id]) for own in facts]
    assert len(set(named)) == len(named)
