"""Decisions of pruners, the user's own among them: what cannot be carried out is refused with the pruner's name."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from helpers import context_for, pruner_of

from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.prune.base import Context
from pipeline.prune.decide import decide, score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.dense import Dense
from pipeline.prune.methods.masks import new_weights, weight_masks


@pytest.mark.parametrize(
    ("decided", "why"),
    [
        (Decision(blocks=(0, 77)), "blocks of its decision names the block 77, but the model has 4"),
        (Decision(attention=(-1,)), "attention of its decision names the block -1"),
        ([0], "decide() returned a list; return a Decision"),
    ],
)
def test_what_is_no_decision_about_this_model_is_refused(make_model, monkeypatch, decided, why):
    monkeypatch.setattr(Dense, "decide", lambda *_: decided)
    with pytest.raises(ValueError, match=f"pruner odd: {re.escape(why)}"):
        decide(make_model(), Dense(name="odd"), parse(0), Context(), lambda *_: None)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (None, "importance() returned a NoneType; return a list of rows with layer, sublayer and score"),
        ([0.5], "row 0 of importance() is a float; return a list of rows with"),
        ([{"layer": 0, "sublayer": "mlp", "score": 1.0}, {"layer": 1}], "row 1 of importance() lacks sublayer, score;"),
        ([{"layer": 0, "sublayer": "mlp", "score": None}], "the score in row 0 of importance() is a NoneType; give a"),
    ],
)
def test_what_are_no_scores_are_refused_with_what_they_lack(make_model, monkeypatch, rows, why):
    monkeypatch.setattr(Dense, "importance", lambda *_: rows)
    with pytest.raises(ValueError, match=f"pruner odd: {re.escape(why)}"):
        score(make_model(), "the model", Dense(name="odd"), {}, Context())


def test_a_score_that_is_not_finite_may_be_the_pruners_own(make_model, monkeypatch):
    monkeypatch.setattr(Dense, "importance", lambda *_: [{"layer": 2, "sublayer": "mlp", "score": float("-inf")}])
    with pytest.raises(ValueError, match=r"score of -inf at layer 2 \(mlp\).*importance\(\) itself computes"):
        score(make_model(), "the model", Dense(name="odd"), {}, Context())


# The text has 4 × 24 tokens.
@pytest.mark.parametrize(
    ("name", "sparsity", "passes"),
    [
        ("attn_drop", 2, 1),
        ("iterative_attn_drop", 2, 2),
        ("shortgpt", 2, 1),
        ("random_attn", 2, 0),
        ("magnitude", 0.5, 0),
        ("wanda", 0.5, 2 + 3 / 4),
        ("divergence", 2, None),
    ],
)
def test_it_says_how_many_tokens_went_through_the_model_for_it(make_model, name, sparsity, passes):
    """One pass scores all units, another one those that are left.

    Weights are changed block by block, in two passes; a further one stops before the last block, to see what each is
    given.
    """
    model, pruner, kept = make_model(), pruner_of(name), {}
    context = context_for(pruner, model)

    def scoring(setup, gone, candidates):
        key = str((gone, candidates))
        if key not in kept:
            own = replace(context, setup=setup, candidates=candidates)
            kept[key] = score(model, "the model", pruner, gone, own)
        return kept[key].copy()

    first = decide(model, pruner, parse(sparsity), replace(context, changes={}), scoring)
    assert first.forward_tokens == (
        sum(row["forward_tokens"] for row in first.scores) if passes is None else pytest.approx(passes * 4 * 24)
    )
    # Scores that were kept cost what they have cost.
    if kept:
        again = decide(model, pruner, parse(sparsity), context, scoring)
        assert again.forward_tokens == pytest.approx(first.forward_tokens)


@pytest.mark.parametrize("make", [new_weights, weight_masks])
def test_a_tensor_of_another_shape_is_not_repeated_over_the_weight(make_model, make):
    linears = Decoder(make_model()).linears(0)
    first = tuple(linears[0].weight.shape)
    with pytest.raises(ValueError, match=re.escape(f"the shape (1, {first[1]}), but its weight {first}")):
        make(linears, lambda name, weight: torch.zeros_like(weight[:1]))
