"""Random controls: independent choices by kind, sparsity, seed and draw, which are replicates of one pruner."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import replace
from math import comb, sqrt

import pytest
import torch
from helpers import pruner_of

from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.model.sources.tiny import model_of, tiny_config
from pipeline.prune.base import Context
from pipeline.prune.pruned_model import decision_of
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Store

UNITS = {"random_blocks": "blocks", "random_attn": "attention", "random_mlp": "mlp"}
LAYERS = 8
PLACES = [(seed, draw) for seed in range(25) for draw in range(1, 11)]


@pytest.fixture
def chosen(make_model):
    """``chosen("random_attn", 2, seed, draw)`` gives the layers that go, of eight."""
    decoder = Decoder(make_model(layers=LAYERS))

    def run(name: str, sparsity: object, seed: int, draw: int) -> frozenset[int]:
        pruner = replace(pruner_of(name), draw=draw)
        torch.manual_seed(seed)
        return frozenset(getattr(pruner.decide(decoder, parse(sparsity), Context(seed=seed)), UNITS[name]))

    return run


def share_near(found: list[bool], expected: float) -> bool:
    """Whether a frequency is within four standard errors of a probability."""
    return abs(sum(found) / len(found) - expected) < 4 * sqrt(expected * (1 - expected) / len(found))


@pytest.mark.parametrize("name", UNITS)
def test_what_a_larger_sparsity_takes_is_independent_of_what_a_smaller_one_takes(chosen, name):
    nested = [chosen(name, 2, *place) <= chosen(name, 4, *place) for place in PLACES]
    assert share_near(nested, comb(4, 2) / comb(LAYERS, 2))


def test_kinds_are_independent(chosen):
    for one, other in (("random_attn", "random_mlp"), ("random_attn", "random_blocks")):
        equal = [chosen(one, 4, *place) == chosen(other, 4, *place) for place in PLACES]
        assert share_near(equal, 1 / comb(LAYERS, 4))


def test_neighbouring_seeds_and_draws_are_independent(chosen):
    """The second draw of a seed is not the first one of the next."""
    equal = [
        chosen("random_attn", 4, seed, draw + 1) == chosen("random_attn", 4, seed + 1, draw) for seed, draw in PLACES
    ]
    assert share_near(equal, 1 / comb(LAYERS, 4))
    assert len({chosen("random_attn", 4, 0, draw) for draw in range(1, 11)}) > 5


def test_every_unit_goes_equally_often(chosen):
    counts = Counter(layer for place in PLACES for layer in chosen("random_mlp", 2, *place))
    assert all(
        share_near([True] * counts[at] + [False] * (len(PLACES) - counts[at]), 2 / LAYERS) for at in range(LAYERS)
    )


def test_one_way_to_write_a_sparsity_is_one_choice(chosen):
    assert chosen("random_attn", 0.5, 3, 2) == chosen("random_attn", "0.50", 3, 2)


def test_random_weights_have_draws_that_are_independent(make_model):
    decoder = Decoder(make_model())
    name = "model.layers.1.mlp.up_proj.weight"

    def mask(seed: int, draw: int, sparsity: object = 0.25) -> torch.Tensor:
        pruner = replace(pruner_of("random_weights"), draw=draw)
        return pruner.decide(decoder, parse(sparsity), Context(seed=seed, changes={})).changes[1].masks[name]

    first = mask(0, 1)
    assert torch.equal(first, mask(0, 1))
    for other in (mask(0, 2), mask(1, 1), mask(1, 2)):
        assert share_near(other[first].tolist(), 0.25)
    assert share_near(mask(0, 1, 0.5)[first].tolist(), 0.5)


def test_draws_keep_the_name_and_are_replicates():
    for name in (*UNITS, "random_weights"):
        one, other = pruner_of(name), replace(pruner_of(name), draw=2)
        assert one.name == other.name == name
        assert one.identity() != other.identity()
        (draw,) = [field for field in dataclasses.fields(one) if field.name == "draw"]
        assert draw.metadata["replicate"]


def test_the_experiments_seed_reaches_the_pruner(make_settings, tmp_path):
    words = ("pruner=random_attn", "model.layers=8", "sparsity=4")
    found = []
    for seed in range(4):
        stages = Workbench(make_settings(*words, f"seed={seed}"), Store(tmp_path / "store"))
        pruner, decoder = stages.settings.pruner, Decoder(stages.model("float32"))
        expected = pruner.decide(decoder, parse(4), Context(seed=seed)).attention
        found.append(decision_of(stages).attention)
        assert found[-1] == expected
    assert len(set(found)) > 1


@pytest.mark.parametrize(("name", "kind"), [("random_attn", "attention"), ("random_mlp", "mlp")])
def test_only_sublayers_that_a_model_has_are_drawn(name, kind):
    """Blocks of Nemotron-H have one sublayer each."""
    decoder = Decoder(model_of(tiny_config("nemotron_h")))
    there = {layer for layer in range(len(decoder.blocks)) if decoder.has(layer, kind)}
    assert 0 < len(there) < len(decoder.blocks)
    for draw in range(1, 11):
        decision = replace(pruner_of(name), draw=draw).decide(decoder, parse(1), Context(seed=0))
        (gone,) = getattr(decision, kind)
        assert gone in there
