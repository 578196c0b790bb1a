"""Pruning by divergence: exact against a full forward pass, cheaper than it, and what is chosen changes least."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from cases import ENCODERS, SOME_ESTIMATES
from helpers import SOME_FAMILIES, context_for, pruner_of
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.sparsity import parse
from pipeline.model.continuations import continued, read
from pipeline.model.decoder import Decoder
from pipeline.model.dropped import is_dropped
from pipeline.model.finite import check_scores
from pipeline.model.prefix import shared_prefix
from pipeline.model.sources.tiny import model_of, tiny_config
from pipeline.model.structure import ATTENTION, BLOCK, MLP, SUBLAYERS
from pipeline.model.trajectory import forwards
from pipeline.prune.base import Context
from pipeline.prune.methods.divergence_estimate import slopes_of
from pipeline.prune.methods.units import ALONE
from pipeline.prune.surgery import apply, dropped

WRITERS = [name for name in SOME_FAMILIES if name not in ENCODERS]
PROMPTS = ["Another, which is a little longer", "A short prompt"]


def divergence(model, trajectory, gone, confidence: float = 0.0) -> float:
    """Mean KL(dense‖without) in float64, weighted by the dense model's confidence, by running both models in full."""

    def logits() -> torch.Tensor:
        states = torch.cat([part.at_predictions(part.run(model)) for part in forwards(trajectory)])
        return model.get_output_embeddings()(states).double()

    with torch.inference_mode():
        decoder = Decoder(model)
        cap = decoder.structure.head_cap or float("inf")
        scale = decoder.structure.head_scale
        squash = (lambda z: cap * torch.tanh(scale * z / cap)) if decoder.structure.head_cap else (lambda z: scale * z)
        dense = torch.log_softmax(squash(logits()), -1)
        with dropped(decoder, gone):
            other = torch.log_softmax(squash(logits()), -1)
    weights = dense.exp().amax(-1) ** confidence
    return float((weights * (dense.exp() * (dense - other)).sum(-1)).sum() / weights.sum())


@pytest.fixture
def grown(make_model, tokenizer):
    """A tiny model and its own continuations of two prompts."""

    def make(architecture: str = "llama"):
        model = make_model(architecture)
        return model, continued(model, tokenizer, PROMPTS, 6)

    return make


@pytest.mark.parametrize("architecture", WRITERS)
def test_every_candidate_is_measured_as_by_a_full_pass(grown, architecture):
    model, trajectory = grown(architecture)
    decoder = Decoder(model)
    candidates = [(kind, layer) for layer in range(4) for kind in (*SUBLAYERS, BLOCK)]
    context = Context(trajectory=trajectory, candidates=candidates)
    in_full, given_up = (
        replace(pruner_of("divergence"), lazy=lazy).importance(decoder, context) for lazy in (True, False)
    )
    assert [[(row["sublayer"], row["layer"]) for row in rows] for rows in (in_full, given_up)] == [candidates] * 2
    best = min(row["score"] for row in in_full)
    for row, some in zip(in_full, given_up, strict=True):
        expected = divergence(model, trajectory, {row["sublayer"]: [row["layer"]]})
        assert row["score"] == pytest.approx(expected, rel=1e-3, abs=1e-6) and row["measured"] == 1
        # Candidates that run side by side are rounded otherwise than each alone.
        known = pytest.approx(row["score"], rel=1e-4, abs=1e-7)
        assert some["score"] == known if some["measured"] == 1 else best < some["score"] < row["score"]


@pytest.mark.parametrize("name", ["divergence_joint", "perplexity_blocks", "output_change_mlp"])
def test_giving_up_finds_what_measuring_all_candidates_in_full_does(make_model, tokenizer, name):
    model = make_model(layers=5)
    prompts = [text * times for times in (1, 3, 9) for text in PROMPTS]
    trajectory, pruner = continued(model, tokenizer, prompts, 6), pruner_of(name)
    in_full = replace(pruner, lazy=True)
    asked = []

    def decided(how):
        def scores(gone, candidates=()):
            with dropped(Decoder(model), gone):
                found = how.importance(Decoder(model), Context(trajectory=trajectory, candidates=candidates))
            asked.append([row["measured"] for row in found])
            return found

        rows = pruner.decide(Decoder(model), parse(4), Context(trajectory=trajectory, scores=scores)).scores
        path = [row for row in rows if row["step"] != ALONE]
        return [(row["sublayer"], row["layer"]) for row in path], [row["score"] for row in path]

    (path, costs), given_up = decided(pruner), asked.copy()
    units, expected = decided(in_full)
    assert min(map(min, given_up)) < 1
    assert path == units
    assert costs == pytest.approx(expected, rel=1e-4)


def test_what_does_not_fit_in_memory_is_computed_again(grown, monkeypatch):
    model, trajectory = grown()

    def scores():
        context = Context(trajectory=trajectory, candidates=[(MLP, 1), (ATTENTION, 2)])
        return pruner_of("divergence").importance(Decoder(model), context)

    kept = scores()
    monkeypatch.setattr("pipeline.prune.methods.divergence.memory_budget", lambda device: 0)
    assert scores() == kept


@pytest.mark.parametrize("confidence", [0.0, 1.0, 8.0])
def test_positions_count_by_the_dense_models_confidence(grown, confidence):
    model, trajectory = grown()
    context = Context(trajectory=trajectory, candidates=[(MLP, 1)])
    (row,) = replace(pruner_of("divergence"), confidence=confidence).importance(Decoder(model), context)
    assert row["score"] == pytest.approx(divergence(model, trajectory, {MLP: [1]}, confidence), rel=1e-3)
    assert row["score"] != pytest.approx(divergence(model, trajectory, {MLP: [1]}, confidence + 1), rel=1e-3)


def test_what_is_measured_in_full_is_shared_by_all_searches_that_do():
    one = pruner_of("divergence")
    assert replace(one, lazy=True).scoring_identity() == replace(one, beam=3).scoring_identity()
    assert one.scoring_identity() != replace(one, lazy=True).scoring_identity()
    assert one.scoring_identity() != replace(one, confidence=4.0).scoring_identity()


def test_what_is_gone_already_counts(grown):
    model, trajectory = grown()
    context = Context(trajectory=trajectory, candidates=[(ATTENTION, 2)])
    with dropped(Decoder(model), {ATTENTION: [0]}):
        (row,) = pruner_of("divergence").importance(Decoder(model), context)
    assert row["score"] == pytest.approx(divergence(model, trajectory, {ATTENTION: [0, 2]}), rel=1e-3)


def test_candidates_share_the_prefix(grown):
    """The last block's candidate costs a fourth of a pass through the blocks."""
    model, trajectory = grown()
    decoder, passes = Decoder(model), list(forwards(trajectory))
    with shared_prefix(decoder, passes) as prefix:

        def flops(layer: int) -> int:
            with FlopCounterMode(display=False) as counter:
                for index in range(len(passes)):
                    prefix.final(layer, index)
            return counter.get_total_flops()

        # The first to ask for the last block takes the states there.
        assert flops(3) == pytest.approx(flops(0), rel=1e-6)
        assert flops(3) * 4 == pytest.approx(flops(0), rel=1e-6)


@pytest.mark.parametrize("kind", [ATTENTION, MLP, BLOCK])
def test_states_follow_what_goes_and_comes_back(grown, kind):
    """Asked again and again about one model, the same answers come as from a fresh start, and blocks run once."""
    model, trajectory = grown()
    decoder, context = Decoder(model), Context(trajectory=trajectory)
    with context.setup:
        for gone in ([], [3], [1, 3], [1], [], [0]):
            candidates = [(ATTENTION, layer) for layer in range(4) if layer not in gone]
            with dropped(decoder, {kind: gone}):
                fresh = Context(trajectory=trajectory, candidates=candidates)
                again = pruner_of("divergence").importance(decoder, replace(context, candidates=candidates))
                assert again == pruner_of("divergence").importance(decoder, fresh)

        def flops(gone) -> int:
            last = replace(context, candidates=[(ATTENTION, 3)])
            with dropped(decoder, {kind: gone}), FlopCounterMode(display=False) as counter:
                pruner_of("divergence").importance(decoder, last)
            return counter.get_total_flops()

        assert flops([0]) == flops([0]) < flops([]) > flops([1]) > flops([1])


def test_another_model_starts_afresh(grown, make_model):
    model, trajectory = grown()
    other = make_model(layers=3)
    context = Context(trajectory=trajectory, candidates=[(ATTENTION, 2)])
    scores = [pruner_of("divergence").importance(Decoder(each), context) for each in (model, other, model)]
    assert scores[0] == scores[2] != scores[1]


@pytest.mark.parametrize("name", ["divergence", "divergence_mlp", "divergence_joint", "divergence_blocks"])
def test_the_first_choice_is_the_best_one_and_the_path_says_what_it_costs(make_model, name):
    model, pruner = make_model(), pruner_of(name)
    context = context_for(pruner, model)
    trajectory = context.trajectory
    scores = pruner.decide(Decoder(model), parse(2), context).scores
    path = [row for row in scores if row["step"] != ALONE]
    alone = {
        (kind, layer): divergence(model, trajectory, {kind: [layer]}) for kind in pruner.kinds for layer in range(4)
    }
    said = {(row["sublayer"], row["layer"]): row["score"] for row in scores if row["step"] == ALONE}
    assert said == pytest.approx(alone, rel=1e-3)

    def a_part(unit: tuple[str, int]) -> float:
        return alone[unit] / len(pruner.parts(unit))

    assert (path[0]["sublayer"], path[0]["layer"]) == min(alone, key=a_part)
    gone: dict[str, list[int]] = {}
    for row in path:
        gone.setdefault(row["sublayer"], []).append(row["layer"])
    assert path[-1]["score"] == pytest.approx(divergence(model, trajectory, gone), rel=1e-3)


@pytest.mark.parametrize("name", ["divergence_joint", "divergence_estimate_joint"])
def test_a_block_of_a_single_sublayer_counts_once(name):
    """In a joint ranking it is gone with its sublayer; among blocks alone it counts as any other."""
    model = model_of(tiny_config("nemotron_h"))
    decoder, pruner = Decoder(model), pruner_of(name)
    kinds = [part.kind for block in decoder.structure.blocks for part in block.parts]
    assert len(kinds) == len(decoder.blocks) and set(kinds) == {ATTENTION, MLP}
    assert pruner.units(decoder) == [(kind, layer) for layer, kind in enumerate(kinds)]
    decision = pruner.decide(decoder, parse(3), context_for(pruner, model))
    assert len(decision.attention) + len(decision.mlp) == 3 and not decision.blocks
    assert len(pruner_of("divergence_blocks").units(decoder)) == len(decoder.blocks)


@pytest.mark.parametrize("name", ["divergence", "perplexity", "output_change", "evolution"])
def test_a_candidate_that_makes_the_model_overflow_is_no_best_one(make_model, name):
    """Without the third attention sublayer what follows is infinite: nothing can be said of its cost."""
    model, pruner = make_model(), pruner_of(name)
    decoder = Decoder(model)
    context = context_for(pruner, model)

    def overflow(module, args, output):
        return output * math.inf if is_dropped(decoder, 2, ATTENTION) else output

    decoder.blocks[2].mlp.register_forward_hook(overflow)
    with pytest.raises(ValueError, match="score of (nan|inf).* cannot be ranked"):
        # The stage checks what a pruner scores in the same way.
        check_scores(pruner.decide(decoder, parse(1), context).scores, name)


def test_a_lazy_beam_is_refused(make_model):
    model, pruner = make_model(), replace(pruner_of("divergence"), lazy=True, beam=2)
    with pytest.raises(ValueError, match="give one of the two"):
        pruner.decide(Decoder(model), parse(1), context_for(pruner, model))


def test_more_is_the_same_path_gone_further(make_model):
    model, pruner = make_model(), pruner_of("divergence")
    one, three = (pruner.decide(Decoder(model), parse(n), context_for(pruner, model)) for n in (1, 3))
    assert three.scores[: len(one.scores)] == one.scores
    assert set(one.attention) < set(three.attention)


def test_what_is_chosen_changes_less_than_most_other_choices(grown):
    model, _ = grown()
    pruner = pruner_of("divergence")
    context = context_for(pruner, model)
    chosen = pruner.decide(Decoder(model), parse(2), context)
    all_pairs = [divergence(model, context.trajectory, {ATTENTION: pair}) for pair in combinations(range(4), 2)]
    mine = divergence(model, context.trajectory, {ATTENTION: chosen.attention})
    assert sorted(all_pairs).index(pytest.approx(mine, rel=1e-6)) <= 1


ESTIMATED = [
    *SOME_ESTIMATES,
    *((writer, 150, 0.0, 0.35) for writer in WRITERS),
]


@pytest.mark.parametrize(("architecture", "draws", "confidence", "near"), ESTIMATED)
def test_the_estimate_is_the_divergence_of_small_updates(grown, architecture, draws, confidence, near):
    """Updates are made small, so that their removal is a small change of the logits, also of two at once."""
    model, trajectory = grown(architecture)
    decoder = Decoder(model)
    for sublayer in decoder.sublayers():
        for module in sublayer.exits:
            module.register_forward_hook(smaller)
    trajectory = read(model, [p + t for p, t in zip(trajectory.prompts, trajectory.tokens, strict=True)])
    slopes = slopes_of(decoder, trajectory, draws, confidence, 0, lambda items, *_: items)
    for gone in ({ATTENTION: [1]}, {MLP: [0]}, {ATTENTION: [3]}, {ATTENTION: [0, 2], MLP: [1]}):
        rows = [2 * layer + SUBLAYERS.index(kind) for kind, layers in gone.items() for layer in layers]
        assert float(slopes[..., rows].sum(-1).square().sum()) == pytest.approx(
            divergence(model, trajectory, gone, confidence), rel=near
        )


def smaller(module, args, output):
    return (0.02 * output[0], *output[1:]) if isinstance(output, tuple) else 0.02 * output


def test_the_estimate_leaves_the_model_as_it_was(grown):
    model, trajectory = grown()
    before = [parameter.requires_grad for parameter in model.parameters()]
    slopes_of(Decoder(model), trajectory, 1, 4.0, 0, lambda items, *_: items)
    assert [parameter.requires_grad for parameter in model.parameters()] == before
    assert not any(sublayer.exits[0]._forward_hooks for sublayer in Decoder(model).sublayers())


def test_the_pruned_model_runs(make_model):
    model, pruner = make_model(), pruner_of("divergence_estimate_joint")
    decision = pruner.decide(Decoder(model), parse(2), context_for(pruner, model))
    apply(model, decision)
    assert len(decision.attention) + len(decision.mlp) == 2
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [("divergence", {}), ("divergence_blocks", {"lazy": True}), ("perplexity", {}), ("divergence", {"beam": 3})],
)
def test_a_search_says_how_many_tokens_it_sent_through_the_model(make_model, monkeypatch, name, options):
    """A candidate in block 3 of 4 takes a fourth of a pass; steps add up to all questions that were asked."""
    model, pruner = make_model(), replace(pruner_of(name), **options)
    context, asked = context_for(pruner, model), []

    def scores(gone, candidates=()):
        asked.append([(sum(map(len, gone.values())), layer) for _, layer in candidates])
        return context.scores(gone, candidates)

    rows = pruner.decide(Decoder(model), parse(2), replace(context, scores=scores)).scores
    tokens = 4 * 24
    for step in (0, 1):
        expected = sum(tokens * (4 - layer) / 4 for part in asked for size, layer in part if size == step)
        assert [row["forward_tokens"] for row in rows if row["step"] == step] == [expected]
    assert not any(row["forward_tokens"] for row in rows if row["step"] == ALONE)
