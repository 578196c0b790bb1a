"""The evolutionary search: it finds the best set of a small model, keeps the budget, and repeats itself by its seed."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from helpers import context_for, pruner_of

from pipeline.config.sparsity import parse
from pipeline.model.continuations import continued
from pipeline.model.decoder import Decoder
from pipeline.model.structure import ATTENTION, MLP
from pipeline.model.trajectory import forwards
from pipeline.prune.methods.evolution import drawn_part, switched
from pipeline.prune.methods.random import generator
from pipeline.prune.surgery import dropped

UNITS = [(kind, layer) for layer in range(4) for kind in (ATTENTION, MLP)]


@torch.inference_mode()
def divergence(model, trajectory, gone) -> float:
    """Mean KL(dense‖without), nats per token, in float64."""

    def log_p() -> torch.Tensor:
        states = torch.cat([part.at_predictions(part.run(model)) for part in forwards(trajectory)])
        return torch.log_softmax(model.get_output_embeddings()(states).double(), -1)

    dense = log_p()
    with dropped(Decoder(model), gone):
        return float((dense.exp() * (dense - log_p())).sum(-1).mean())


def removed(decision) -> set[tuple[str, int]]:
    return {(ATTENTION, layer) for layer in decision.attention} | {(MLP, layer) for layer in decision.mlp}


def test_it_finds_the_best_of_all_sets(make_model):
    """Few offspring of 56 possible sets, so that it has to search."""
    model, pruner = make_model(), replace(pruner_of("evolution_joint"), offspring=4, generations=40)
    context = context_for(pruner, model)
    decision = pruner.decide(Decoder(model), parse(3), context)
    values = {
        frozenset(chosen): divergence(
            model, context.trajectory, {kind: [at for k, at in chosen if k == kind] for kind in (ATTENTION, MLP)}
        )
        for chosen in combinations(UNITS, 3)
    }
    best = min(values, key=values.__getitem__)
    assert removed(decision) == best
    assert decision.scores[-1]["score"] == pytest.approx(values[best], rel=1e-3)
    fitness = [row["score"] for row in decision.scores]
    assert fitness == sorted(fitness, reverse=True)
    assert fitness[0] > fitness[-1]


def test_the_seed_decides_and_nothing_else(make_model):
    model = make_model()
    pruner = replace(pruner_of("evolution_joint"), offspring=2, generations=1, tokens=[20, 40])
    decisions = []
    for seed in (0, 0, *range(1, 6)):
        torch.manual_seed(len(decisions))
        decisions.append(pruner.decide(Decoder(model), parse(3), replace(context_for(pruner, model), seed=seed)))
    assert decisions[0] == decisions[1]
    assert len({frozenset(removed(decision)) for decision in decisions}) > 1


def test_a_generation_costs_its_sets_on_their_tokens(make_model):
    """Twice the offspring on the first tokens; then all offspring, and their survivors with the parent on more."""
    model = make_model()
    pruner = replace(pruner_of("evolution_joint"), offspring=5, generations=2, survivors=[3, 1], tokens=[23, 46])
    first, *later = pruner.decide(Decoder(model), parse(3), context_for(pruner, model)).scores
    # Sequences of 24 tokens predict 23.
    assert (first["questions"], first["forward_tokens"]) == (10, 10 * 24)
    for number, row in enumerate(later, 1):
        assert (row["step"], row["questions"]) == (number, 5 + 4)
        assert row["forward_tokens"] == 5 * 24 + 4 * 48


def test_on_the_whole_text_a_set_is_measured_once(make_model):
    """There are six pairs of four attention sublayers."""
    model, pruner = make_model(), replace(pruner_of("evolution"), offspring=3, generations=10)
    scores = pruner.decide(Decoder(model), parse(2), context_for(pruner, model)).scores
    assert sum(row["questions"] for row in scores) == 6
    assert sum(row["forward_tokens"] for row in scores) == 6 * 4 * 24


def test_switches_keep_the_budget():
    numbers, start = generator("test"), frozenset(UNITS[:3])
    found = [switched(UNITS, start, 1, numbers) for _ in range(200)]
    assert {len(each) for each in found} == {3}
    # One goes and one comes back: all 3 · 5 neighbours of the set, and nothing else.
    assert {each for each in found if len(each & start) == 2} == set(found)
    assert len(set(found)) == 15
    assert switched(UNITS, frozenset(UNITS), 2, numbers) == frozenset(UNITS)


def test_a_part_of_the_text_predicts_exactly_as_many_tokens(make_model, tokenizer):
    model = make_model()
    whole = continued(model, tokenizer, ["One", "Another prompt", "A third prompt, longer", "And one more"], 6)
    total = sum(map(len, whole.tokens))
    assert drawn_part(whole, total, generator("test")) is whole
    for tokens in (1, 7, total - 1):
        part = drawn_part(whole, tokens, generator("test", tokens))
        assert sum(map(len, part.tokens)) == len(part.final) == tokens
        states = torch.cat([each.at_predictions(each.run(model)) for each in forwards(part)])
        torch.testing.assert_close(states, part.final, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("survivors", "tokens"), [([1], [8, 9]), ([1, 2], [8, 9]), ([2, 1], [9, 8]), ([], [])])
def test_selections_that_make_no_sense_are_refused(make_model, survivors, tokens):
    pruner = replace(pruner_of("evolution"), survivors=survivors, tokens=tokens)
    with pytest.raises(ValueError, match="one number for each selection"):
        pruner.decide(Decoder(make_model()), parse(1), context_for(pruner, make_model()))
