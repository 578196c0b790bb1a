"""Effects as sentences: the numbers of the comparisons, the largest gap first, and what cannot be told."""

from __future__ import annotations

import numpy as np
import pytest
from figure_tables import comparisons_table

from pipeline.analysis.effects import Effect, Retained, effects, sentence, short_sentence, variant_name, without_shares
from pipeline.evaluate.comparison import MEAN, pool
from pipeline.tables.variants import Variant

SETUPS = (("wanda", "0.4"), ("shortgpt", "0.2"), ("shortgpt", "0.4"))


def told(*kinds: tuple[str, float, str]) -> Effect:
    retained = (Retained(kind, share, share - 0.1, share + 0.1, verdict) for kind, share, verdict in kinds)
    return Effect(Variant("shortgpt", "0.2"), tuple(retained))


def test_effects_are_the_pooled_shares_with_the_largest_gap_first() -> None:
    table = comparisons_table(SETUPS)
    table = table[table["task"] != MEAN].assign(options="", replicates=1)
    found = effects(table)
    assert {effect.variant for effect in found} == {Variant(*setup) for setup in SETUPS}
    gaps = [effect.gap for effect in found]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < gaps[0]
    for effect in found:
        own = table[(table["pruner"] == effect.variant.pruner) & (table["sparsity"] == effect.variant.sparsity)]
        means = pool(own).set_index("kind")
        assert [retained.kind for retained in effect.kinds] == ["generative", "multiple_choice"]
        for retained in effect.kinds:
            row = means.loc[retained.kind]
            assert (retained.share, retained.low, retained.high) == pytest.approx(
                tuple(row[["retained", "retained_low", "retained_high"]])
            )
            assert retained.verdict == row["verdict"]


def test_a_variant_without_both_kinds_comes_last() -> None:
    table = comparisons_table(SETUPS)
    table = table[table["task"] != MEAN].assign(options="", replicates=1)
    alone = (table["pruner"] == "shortgpt") & (table["sparsity"] == "0.4")
    found = effects(table[~alone | (table["kind"] == "generative")])
    assert found[-1].variant == Variant("shortgpt", "0.4") and np.isnan(found[-1].gap)
    assert effects(table[:0]) == []


def test_a_sentence_says_what_is_retained() -> None:
    both = told(("generative", 0.388, "lost"), ("multiple_choice", 0.921, "kept"))
    said = "retains {}39 % [29, 49] of generation (lost), 92 % [82, 102] of multiple choice (kept)"
    assert sentence(both) == f"shortgpt at 20 %: {said.format('above chance ')}"
    assert short_sentence(both) == f"shortgpt at 20 %: {said.format('')}"
    assert both.lost and not told(("generative", 0.6, "kept"), ("retrieval", 0.3, "cannot be told")).lost
    # Below chance, nothing is left.
    assert "retains above chance 0 % [0, 5] of generation" in sentence(told(("generative", -0.05, "lost")))


def test_a_sentence_says_what_is_uncertain_or_unknown() -> None:
    few = told(("generative", 0.9, "cannot be told"), ("multiple_choice", np.nan, "no signal"))
    assert sentence(few) == (
        "shortgpt at 20 %: retains above chance 90 % [80, 100] of generation (cannot be told); "
        "the dense model is not above chance in multiple choice"
    )
    none = told(("generative", np.nan, "cannot be told"), ("multiple_choice", np.nan, "cannot be told"))
    assert sentence(none) == "shortgpt at 20 %: too few items for generation and multiple choice"


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (("wanda", "2:4"), "wanda at 2:4"),
        (("wanda", "0.125", "wiki 32×256"), "wanda at 12.5 %, wiki 32×256"),
        (("attn_drop", "8"), "attn_drop at 8 attention sublayers"),
        (("shortgpt", "1"), "shortgpt at 1 block"),
        (("rtn", "0", "3 bits"), "rtn 3 bits"),
        (("one_of_mine", "4"), "one_of_mine at 4"),
    ],
)
def test_names_of_variants_are_words(variant: tuple[str, ...], name: str) -> None:
    assert variant_name(Variant(*variant)) == name


def test_variants_without_a_share_are_told_together() -> None:
    blind = told(("generative", np.nan, "no signal"), ("multiple_choice", np.nan, "no signal"))
    few = told(("generative", np.nan, "cannot be told"))
    known = told(("generative", 0.5, "lost"), ("multiple_choice", np.nan, "no signal"))
    assert without_shares([blind, known, blind, few]) == [
        "2 variants: the dense model is not above chance in generation and multiple choice",
        "shortgpt at 20 %: too few items for generation",
    ]
    assert without_shares([known]) == []
