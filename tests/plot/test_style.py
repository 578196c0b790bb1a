"""Looks of pruners: distinct, also without green cones, and the same in every figure."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from colorspacious import cspace_convert
from matplotlib.colors import to_rgb

from pipeline.config.choices import choices_of
from pipeline.plot import style
from pipeline.tables.variants import DENSE

BUILT_IN = [name for name in choices_of("pruner") if name != DENSE]
APART = 15.0  # in CAM02-UCS, where 1 is about the least difference that is seen side by side


def looks(names: list[str]) -> dict[str, tuple[str, str]]:
    colours, markers = style.pruner_colours(names), style.pruner_markers(names)
    return {name: (colours[name], markers[name]) for name in names}


def test_every_pruner_has_a_look_of_its_own_whatever_else_is_drawn() -> None:
    together = looks([*BUILT_IN, "mine"])
    assert len(set(together.values())) == len(together) >= 30
    assert together == {name: looks([name])[name] for name in together}


def test_lines_of_one_pruner_differ_and_the_first_has_its_look() -> None:
    colours, markers = style.line_looks({"wanda": "wanda", "wanda, a": "wanda", "wanda, b": "wanda", "rtn": "rtn"})
    assert len(set(zip(colours.values(), markers.values(), strict=True))) == 4
    assert {name: (colours[name], markers[name]) for name in ("wanda", "rtn")} == looks(["wanda", "rtn"])


@pytest.mark.parametrize("severity", [0, 100])
def test_colours_are_told_apart_also_without_green_cones(severity: int) -> None:
    colours = [*style.PALETTE, *style.SPACE_COLOURS.values(), style.INK]
    shown = np.array([to_rgb(colour) for colour in colours])
    sight = {"name": "sRGB1+CVD", "cvd_type": "deuteranomaly", "severity": severity}
    places = cspace_convert(np.clip(cspace_convert(shown, sight, "sRGB1"), 0, 1), "sRGB1", "CAM02-UCS")
    for one, other in itertools.combinations(range(len(colours)), 2):
        if {colours[one], colours[other]} - set(style.SPACE_COLOURS.values()):  # those are Okabe and Ito's
            assert np.linalg.norm(places[one] - places[other]) >= APART, (colours[one], colours[other])
