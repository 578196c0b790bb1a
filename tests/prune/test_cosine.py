"""Scores of units, and which units they choose, checked against the definitions by hand."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import calibration_batches

from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.model.nested import first
from pipeline.model.residual import layout, tap
from pipeline.model.structure import ATTENTION, MLP, SUBLAYERS
from pipeline.prune.base import Context
from pipeline.prune.methods.cosine import block_cosines, sublayer_cosines
from pipeline.prune.surgery import dropped


def test_block_influence_follows_its_definition(make_model, architecture):
    decoder, runs = Decoder(make_model(architecture)), []
    with torch.inference_mode():
        for batch in calibration_batches():
            run: list[tuple[torch.Tensor, torch.Tensor]] = []

            def listen(module, args, out, run=run):
                run.append((args[0], first(out)))

            hooks = [block.register_forward_hook(listen) for block in decoder.blocks]
            decoder.base(batch, use_cache=False)
            for hook in hooks:
                hook.remove()
            runs.append(run)
    by_hand = [
        torch.cat([torch.cosine_similarity(*run[layer], dim=-1).flatten() for run in runs]).mean().item()
        for layer in range(4)
    ]
    assert block_cosines(decoder, Context(calibration_batches())) == pytest.approx(by_hand, abs=1e-5)


def test_sublayer_scores_follow_their_definition(make_model, architecture):
    decoder, plan = Decoder(make_model(architecture)), layout(Decoder(make_model(architecture)))
    cosines: dict[int, list[torch.Tensor]] = {}
    for batch in calibration_batches():
        states: dict[int, torch.Tensor] = {}
        with torch.inference_mode(), tap(decoder, lambda i, x, states=states: states.update({i: x})):
            decoder.base(batch, use_cache=False)
        for i, (before, after) in enumerate(zip(plan.before, plan.after, strict=True)):
            cosines.setdefault(i, []).append(torch.cosine_similarity(states[before], states[after], dim=-1).flatten())
    by_hand = [torch.cat(cosines[i]).mean().item() for i in range(8)]
    assert sublayer_cosines(decoder, Context(calibration_batches())) == pytest.approx(by_hand, abs=1e-5)


def test_unequal_batches_count_every_token_once(make_model):
    decoder = Decoder(make_model())
    rows = [row for batch in calibration_batches() for row in batch]
    uneven = [torch.stack(rows[:3]), rows[3][None]]
    assert sublayer_cosines(decoder, Context(uneven)) == pytest.approx(
        sublayer_cosines(decoder, Context(calibration_batches())), abs=1e-6
    )


def test_droppers_take_the_least_important(decide):
    for name, column in (("shortgpt", "blocks"), ("attn_drop", "attention"), ("mlp_drop", "mlp")):
        decision = decide(name, 2)
        kind = {"blocks": "block"}.get(column, column)
        mine = sorted((row["score"], row["layer"]) for row in decision.scores if row["sublayer"] == kind)
        assert set(getattr(decision, column)) == {layer for _, layer in mine[:2]}


def test_joint_drop_ranks_attention_and_mlp_together(decide):
    decision = decide("joint_drop", 3)
    ranked = sorted(decision.scores, key=lambda row: row["score"])[:3]
    assert {(row["sublayer"], row["layer"]) for row in ranked} == {
        *((ATTENTION, layer) for layer in decision.attention),
        *((MLP, layer) for layer in decision.mlp),
    }


def test_iterative_dropping_scores_again_without_what_is_gone(decide, make_model):
    decision = decide("iterative_joint_drop", 3)
    model, gone = make_model(), {ATTENTION: [], MLP: []}
    for step, row in enumerate(decision.scores):
        with dropped(Decoder(model), gone):
            cosines = sublayer_cosines(Decoder(model), Context(calibration_batches()))
        left = {i: c for i, c in enumerate(cosines) if i // 2 not in gone[SUBLAYERS[i % 2]]}
        best = max(left, key=left.get)
        assert (row["step"], row["layer"], row["sublayer"]) == (step, best // 2, SUBLAYERS[best % 2])
        assert row["score"] == pytest.approx(1 - left[best])
        gone[row["sublayer"]].append(row["layer"])
    assert (list(decision.attention), list(decision.mlp)) == (sorted(gone[ATTENTION]), sorted(gone[MLP]))


def test_iterative_dropping_can_take_every_unit(decide):
    assert decide("iterative_attn_drop", 4).attention == (0, 1, 2, 3)
    joint = decide("iterative_joint_drop", 8)
    assert joint.attention == joint.mlp == (0, 1, 2, 3)


def test_contiguous_blocks_have_the_smallest_angle_at_the_last_token(decide, make_model):
    model, states = make_model(), {}
    hooks = [
        block.register_forward_pre_hook(lambda m, a, i=i: states.setdefault(i, []).append(a[0][:, -1]))
        for i, block in enumerate(model.model.layers)
    ]
    hooks.append(model.model.norm.register_forward_pre_hook(lambda m, a: states.setdefault(4, []).append(a[0][:, -1])))
    with torch.inference_mode():
        for batch in calibration_batches():
            model(batch)
    states = {i: torch.cat(rows) for i, rows in states.items()}
    angles = {
        start: float(
            torch.cosine_similarity(states[start].double(), states[start + 2].double()).arccos().mean() / math.pi
        )
        for start in range(3)
    }
    decision = decide("contiguous", 2)
    best = min(angles, key=angles.get)
    assert decision.blocks == (best, best + 1)
    mine = {row["layer"]: row["score"] for row in decision.scores if row["blocks"] == 2}
    assert mine == pytest.approx(angles, abs=1e-5)


def test_random_pruning_depends_on_the_seed_alone(make_settings, make_model):
    for name in ("random_blocks", "random_attn", "random_mlp", "random_weights"):
        pruner, found = make_settings(f"pruner={name}").pruner, []
        for seed in (0, 0, 1, 2, 3):
            decision = pruner.decide(Decoder(make_model(layers=4)), parse(0.5), Context(seed=seed))
            masks = {
                key: mask.sum(0).tolist() for change in decision.changes.values() for key, mask in change.masks.items()
            }
            found.append((decision.blocks, decision.attention, decision.mlp, masks))
        assert found[0] == found[1]
        assert any(other != found[0] for other in found[2:])


def test_iterative_blocks_are_scored_without_what_is_gone(decide, make_model):
    decision = decide("iterative_blocks", 2)
    first, second = (row["layer"] for row in decision.scores)
    model = make_model()
    with dropped(Decoder(model), {"block": [first]}):
        cosines = block_cosines(Decoder(model), Context(calibration_batches()))
    assert cosines[first] == pytest.approx(1)
    left = {layer: cosine for layer, cosine in enumerate(cosines) if layer != first}
    assert second == max(left, key=left.get)


def test_pruners_that_share_a_criterion_share_its_scores(make_settings):
    def identity(name):
        return make_settings(f"pruner={name}").pruner.scoring_identity()

    assert identity("attn_drop") == identity("joint_drop") == identity("iterative_mlp_drop")
    assert identity("shortgpt") == identity("iterative_blocks") != identity("contiguous")


def test_a_context_without_scores_says_so(make_settings, make_model):
    with pytest.raises(ValueError, match="its context has none"):
        make_settings("pruner=shortgpt").pruner.decide(Decoder(make_model()), parse(2), Context(calibration_batches()))
