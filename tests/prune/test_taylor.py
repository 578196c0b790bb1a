"""Pruning to first order in the weights: products against PyTorch's own backward pass, added up by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cases import ENCODERS
from helpers import SOME_FAMILIES, calibration_batches, context_for, pruner_of

from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.model.structure import ATTENTION, BLOCK, MLP
from pipeline.prune.calibration import context_of

WRITERS = [name for name in SOME_FAMILIES if name not in ENCODERS]


def products(model) -> dict[str, torch.Tensor]:
    """``w · ∂L/∂w`` of every weight; L is the mean loss over all tokens that the batches predict."""
    found: dict[str, torch.Tensor] = {}
    total = sum(batch[:, 1:].numel() for batch in calibration_batches())
    for batch in calibration_batches():
        model.zero_grad()
        logits = model(batch, use_cache=False).logits[:, :-1].flatten(0, 1)
        (torch.nn.functional.cross_entropy(logits, batch[:, 1:].flatten(), reduction="sum") / total).backward()
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                found[name] = found.get(name, 0) + weight.detach() * weight.grad
    model.zero_grad()
    return found


@pytest.mark.parametrize("architecture", WRITERS)
def test_a_block_is_the_sum_of_its_products(make_model, architecture):
    model, pruner = make_model(architecture), pruner_of("taylor_blocks")
    scores = pruner.importance(Decoder(model), context_for(pruner, model))
    expected = products(model)
    for layer in range(4):
        start = f"{Decoder(model).blocks_name}.{layer}."
        parts = [own for name, own in expected.items() if name.startswith(start) and not name.endswith("bias")]
        (row,) = (row for row in scores if (row["sublayer"], row["layer"]) == (BLOCK, layer))
        assert row["score"] == pytest.approx(float(sum(part.abs().sum() for part in parts)), rel=1e-4)


def test_sublayers_have_their_own_matrices_and_norms(make_model):
    model, pruner = make_model(), pruner_of("taylor_attn")
    scores = {
        (row["sublayer"], row["layer"]): row["score"]
        for row in pruner.importance(Decoder(model), context_for(pruner, model))
    }
    expected = products(model)
    words = {ATTENTION: ("self_attn.", "input_layernorm."), MLP: ("mlp.", "post_attention_layernorm.")}
    for (kind, layer), score in scores.items():
        if kind == BLOCK:
            assert score == pytest.approx(scores[ATTENTION, layer] + scores[MLP, layer])
            continue
        starts = tuple(f"model.layers.{layer}.{word}" for word in words[kind])
        parts = [own for name, own in expected.items() if name.startswith(starts)]
        assert score == pytest.approx(float(sum(part.abs().sum() for part in parts)), rel=1e-4)


@pytest.mark.parametrize(("name", "kind"), [("taylor_attn", ATTENTION), ("taylor_mlp", MLP), ("taylor_blocks", BLOCK)])
def test_the_lowest_go(make_model, name, kind):
    model, pruner = make_model(), pruner_of(name)
    before = [(weight.requires_grad, weight.grad) for weight in model.parameters()]
    decision = pruner.decide(Decoder(model), parse(2), context_for(pruner, model))
    assert [(weight.requires_grad, weight.grad) for weight in model.parameters()] == before
    ranked = sorted((row for row in decision.scores if row["sublayer"] == kind), key=lambda row: row["score"])
    gone = {ATTENTION: decision.attention, MLP: decision.mlp, BLOCK: decision.blocks}[kind]
    assert sorted(gone) == sorted(row["layer"] for row in ranked[:2])


def test_every_predicted_token_counts_alike_in_whatever_batches(make_model):
    """Batches hold sequences of one length, so that a batch of few must not count as much as one of many."""
    model, pruner = make_model(), pruner_of("taylor_attn")
    decoder, context = Decoder(model), context_for(pruner, model)
    rows = torch.randint(5, 60, (5, 12), generator=torch.Generator().manual_seed(0))

    def scores(*batches: torch.Tensor) -> list[float]:
        own = replace(context, batches=list(batches))
        return [row["score"] for row in pruner.importance(decoder, own)]

    apart = scores(*rows.split(1))
    assert scores(rows) == pytest.approx(apart, rel=1e-4)
    assert scores(rows[:4], rows[4:]) == pytest.approx(apart, rel=1e-4)


def test_units_share_their_scores():
    identities = [pruner_of(name).scoring_identity() for name in ("taylor_attn", "taylor_mlp", "taylor_blocks")]
    assert identities[0] == identities[1] == identities[2]


@pytest.mark.parametrize("name", ["taylor_attn", "taylor_blocks"])
def test_the_first_and_last_blocks_may_be_kept(make_model, name):
    model, pruner = make_model(layers=6), replace(pruner_of(name), kept_first=2, kept_last=1)
    decision = pruner.decide(Decoder(model), parse(3), context_for(pruner, model))
    assert sorted((*decision.attention, *decision.blocks)) == [2, 3, 4]
    with pytest.raises(ValueError, match="kept_first=2 and pruner.kept_last=1 leave 3"):
        pruner.decide(Decoder(model), parse(4), context_for(pruner, model))
    assert pruner.scoring_identity() == pruner_of(name).scoring_identity()


@pytest.mark.parametrize("name", ["taylor_attn", "divergence", "attn_drop"])
def test_given_text_is_warned_of_where_predictions_of_it_count(caplog, name):
    """Cosines compare states, so that for them any text will do."""
    context_of(pruner_of(name), SimpleNamespace(generated=False), calibration_batches, lambda: None)
    warned = "chooses by predictions of the given text" in caplog.text
    assert warned == (name != "attn_drop")
