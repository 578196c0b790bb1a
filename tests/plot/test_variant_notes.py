"""Sentences of captions that name variants, error bars and scales, and sizes that follow from how many there are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.plot import canvas, letters, style
from pipeline.plot.layer_map import scale_of
from pipeline.plot.paper.fig24_confidence_strata import _numbers
from pipeline.plot.score_curves import NARROW, span
from pipeline.plot.score_errors import error_name, with_seeds
from pipeline.plot.variant_notes import left_out_note, listed, not_shown_note, replicates_note
from pipeline.tables.variants import VARIANT, Variant

WANDA = [Variant("wanda", word, "4×32") for word in ("0.25", "0.5")]
OTHERS = [Variant("magnitude", "2:4"), Variant("awq", "", "4×32")]


def test_sparsities_of_a_pruner_are_listed_together() -> None:
    assert listed([*WANDA, *OTHERS]) == "wanda 0.25, 0.5, 4×32; magnitude 2:4; awq 4×32"
    assert listed([Variant("wanda", "0.25"), Variant("magnitude", "2:4")]) == "wanda 0.25, magnitude 2:4"
    assert left_out_note(WANDA) == ("Left out for space: wanda 0.25, 0.5, 4×32.",)
    assert not_shown_note(iter(WANDA[:1])) == ("Not shown: wanda 0.25, 4×32.",)
    assert left_out_note([]) == not_shown_note([]) == ()


def _jobs(counts: dict[Variant, int]) -> pd.DataFrame:
    rows = [(*variant, f"seed {seed}") for variant, count in counts.items() for seed in range(count)]
    return pd.DataFrame(rows, columns=[*VARIANT, "replicate"])


def test_seeds_are_told_of_the_variants_that_a_figure_shows() -> None:
    jobs = _jobs({WANDA[0]: 3, WANDA[1]: 3, OTHERS[0]: 1, OTHERS[1]: 2})
    shown = pd.DataFrame([WANDA[0]], columns=VARIANT)
    assert replicates_note(jobs, shown)[0].startswith("Each variant under 3 seeds or draws; ")
    merged = pd.DataFrame([Variant("wanda", "0.25, 0.5", "4×32"), OTHERS[0]], columns=VARIANT)
    assert replicates_note(jobs, merged)[0].startswith("Repeated: wanda 0.25, 0.5, 4×32: 3 seeds or draws; ")
    assert replicates_note(jobs, pd.DataFrame([OTHERS[0]], columns=VARIANT)) == ()
    assert replicates_note(jobs, pd.DataFrame({"prompt": ["one"]})) == ()


@pytest.mark.parametrize(
    ("seeds", "name"),
    [
        ((1, 1), "standard error over items"),
        ((3, 3), "standard deviation over seeds"),
        ((1, 3), "standard error over items; over several seeds, standard deviation"),
    ],
)
def test_error_bars_are_named_after_what_they_are(seeds: tuple[int, int], name: str) -> None:
    scores = _jobs(dict(zip(WANDA, seeds, strict=True))).assign(model="tiny")
    data = pd.DataFrame(WANDA, columns=VARIANT).assign(model="tiny")
    counted = with_seeds(data, scores)
    assert tuple(counted["seeds"]) == seeds and error_name(counted) == name


def test_rows_of_panels_fit_on_a_page_and_few_are_as_high_as_before() -> None:
    assert canvas.panel_height(2) == canvas.PANEL_HEIGHTS[2] and canvas.panel_height(4) == canvas.LEAST_HEIGHT
    for rows in range(5, 9):
        inside = rows * (canvas.panel_height(rows) + canvas.PANEL_TITLE) + canvas.LABEL_HEIGHT
        assert inside <= canvas.TALLEST + 1e-9


def test_curves_of_many_pruners_take_a_page_whose_width_has_room_for_their_names() -> None:
    names = [f"pruner_{number}" for number in range(NARROW + 1)]
    data = pd.DataFrame({"model": "tiny", "pruner": ["dense", *names], "options": ""})
    assert span(data) == "page" and span(data[:-1]) == "column"
    assert span(data[:2].assign(model=["tiny", "small"])) == "page"


def test_bounds_of_strata_are_told_apart() -> None:
    assert _numbers([0.0212, 0.0241, 0.0249, 0.333]) == ["0.021", "0.024", "0.025", "0.333"]
    assert _numbers([5.0921, 2.55, 1.0]) == ["5.09", "2.55", "1.00"]
    assert _numbers([0.5, 0.5, 0.7]) == ["0.50", "0.50", "0.70"]


def test_colours_reach_down_from_where_the_scale_ends() -> None:
    values = pd.Series([*np.geomspace(1e-6, 1.0, 1000), 1e6])
    scale = scale_of(values)
    assert scale.above and not scale.below and scale.low == pytest.approx(1e-6 / 1.25)
    assert scale.notes() == ["Darkest: 0.8 and above."]


def test_letters_add_up_to_at_least_the_width_of_their_text() -> None:
    for text, wider in (
        ("AVATAR To Yoga", 0.1),
        ("wanda 0.25, 4×32", 0.02),
        ("efficient flow of texts over lines", 0.02),
    ):
        for bold in (False, True):
            real = letters.laid_width(text, style.TEXT_SIZE, bold)
            assert real - 1e-3 <= letters.text_width(text, style.TEXT_SIZE, bold) <= (1 + wider) * real
