"""Captions: every figure says which model and text it shows, of how many prompts or items, and what its bars are."""

from __future__ import annotations

import re

import pytest
from figure_tables import ITEMS, MODEL, SETUPS, fill, second_model

from pipeline.plot.discovery import figures
from pipeline.plot.drawing import draw

pytestmark = pytest.mark.rotated("captions")
PROMPTS = 4
# Of one item, of one prompt, and the prompts themselves.
SINGLE = {"fig08_options", "tab2_generated_text", "tab3_prompts"}
COUNTED = re.compile(rf"\b({PROMPTS} (probe )?prompts|{ITEMS} items|{3 * ITEMS} items|\d+ points)\b")
SPREAD = {"low", "high", "low_percent", "kl_low", "stderr_percent"}


@pytest.fixture(scope="module")
def captions(tmp_path_factory) -> dict[str, tuple[str, set[str]]]:
    """The caption of every figure, and the columns of its data."""
    setups = [*SETUPS, ("divergence", "4"), ("divergence_estimate", "4")]
    outputs = second_model(fill(tmp_path_factory.mktemp("captions"), setups, layers=2), "other-lm")
    with pytest.MonkeyPatch.context() as patch:
        # Only captions and data count.
        patch.setattr("pipeline.plot.render._render", lambda content, data: {"csv": content.csv, "png": b""})
        results = draw(outputs)
    assert [result.missing for result in results] == [None] * len(figures())
    return {
        result.name: (result.caption, set(result.paths[-1].read_text("utf-8").partition("\n")[0].split(",")))
        for result in results
    }


def test_every_caption_names_the_model_and_the_settings(captions):
    assert [name for name, (text, _) in captions.items() if MODEL not in text or "Settings: " not in text] == []


def test_every_caption_tells_of_how_many_prompts_items_or_points(captions):
    assert [name for name, (text, _) in captions.items() if name not in SINGLE and not COUNTED.search(text)] == []


def test_every_caption_says_what_bars_and_bands_are(captions):
    spread = {name: text for name, (text, columns) in captions.items() if columns & SPREAD}
    assert len(spread) > 20
    said = re.compile(r"[Bb]ars?: |[Bb]and: |± ")
    assert [name for name, text in spread.items() if not said.search(text)] == []
