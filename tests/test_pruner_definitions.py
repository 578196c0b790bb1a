"""What each pruner promises beyond the contract: its definition, checked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import calibration_batches, context_for
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.activations import Activations
from pipeline.decoder import ATTENTION, MLP, SUBLAYERS, Decoder
from pipeline.linear_inputs import linear_inputs, one_expert_at_a_time
from pipeline.pruners.base import Context
from pipeline.pruners.blockwise import block_calls
from pipeline.pruners.hessian import Moments, inverse_factor
from pipeline.pruners.importance import block_cosines, sublayer_cosines
from pipeline.pruners.masks import lowest_overall, lowest_per_row, n_of_m, per_output
from pipeline.pruners.quantize import round_to_nearest
from pipeline.pruners.sparsegpt import compensate, factorise, gather
from pipeline.pruners.wanda import column_energy, metric
from pipeline.residual import layout, tap
from pipeline.sparsity import parse
from pipeline.surgery import dropped


@pytest.fixture
def decide(make_settings, make_model):
    def run(name: str, sparsity: object, architecture: str = "llama", *overrides: str):
        pruner, model = make_settings(f"pruner={name}", *overrides).pruner, make_model(architecture)
        torch.manual_seed(0)
        return pruner.decide(Decoder(model), parse(sparsity), context_for(pruner, model))

    return run


# --- scores ---------------------------------------------------------------------------------------------------------


def test_block_influence_follows_its_definition(make_model, architecture):
    decoder, runs = Decoder(make_model(architecture)), []
    with torch.inference_mode():
        for batch in calibration_batches():
            run: list[tuple[torch.Tensor, torch.Tensor]] = []

            def listen(module, args, out, run=run):
                run.append((args[0], out))

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
            torch.manual_seed(seed)
            decision = pruner.decide(Decoder(make_model(layers=4)), parse(0.5), Context())
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


# --- block after block ----------------------------------------------------------------------------------------------


def test_wanda_feeds_each_block_with_its_pruned_forerunners(decide, make_model):
    """The last block's statistics must come from a model whose earlier blocks are pruned already."""
    decision = decide("wanda", 0.5)
    model, dense = make_model(), make_model()
    for layer in range(3):
        for name, mask in decision.changes[layer].masks.items():
            model.get_parameter(name).data.masked_fill_(mask, 0)
    name, energies = "model.layers.3.mlp.down_proj", []
    for subject in (model, dense):
        total = torch.zeros(128)

        def add(module, args, total=total):
            total += column_energy(args[0])

        hook = subject.get_submodule(name).register_forward_pre_hook(add)
        with torch.inference_mode():
            for batch in calibration_batches():
                subject(batch)
        hook.remove()
        energies.append(total / 4)
    weight, mask = model.get_submodule(name).weight, decision.changes[3].masks[f"{name}.weight"]
    assert torch.equal(per_output(metric(weight, energies[0]), parse(0.5)), mask)
    assert not torch.equal(per_output(metric(weight, energies[1]), parse(0.5)), mask)


def test_statistics_come_from_the_dense_weights_of_the_block_itself(decide, make_model, make_settings):
    """Whether matrices are treated in one pass or one by one, the result is the same."""
    from pipeline.pruners import sparsegpt

    whole = decide("sparsegpt", 0.5)
    budget, sparsegpt._BUDGET = sparsegpt._BUDGET, 1
    try:
        single = decide("sparsegpt", 0.5)
    finally:
        sparsegpt._BUDGET = budget
    for layer in whole.changes:
        for key, mask in whole.changes[layer].masks.items():
            assert torch.equal(mask, single.changes[layer].masks[key])


def test_an_interrupted_run_goes_on_after_its_last_finished_block(make_settings, make_model):
    pruner, changes = make_settings("pruner=sparsegpt").pruner, {}
    full = pruner.decide(Decoder(make_model()), parse(0.5), Context(calibration_batches(), changes={}))

    class Stop(dict):
        def __setitem__(self, layer, change):
            if layer == 2:
                raise KeyboardInterrupt
            super().__setitem__(layer, change)

    changes = Stop()
    with pytest.raises(KeyboardInterrupt):
        pruner.decide(Decoder(make_model()), parse(0.5), Context(calibration_batches(), changes=changes))
    kept = dict(changes)
    resumed = pruner.decide(Decoder(make_model()), parse(0.5), Context(calibration_batches(), changes=kept))
    assert kept[0] is changes[0]
    for layer in range(4):
        for key, value in full.changes[layer].weights.items():
            assert torch.equal(resumed.changes[layer].weights[key], value)


def test_block_calls_are_what_the_blocks_get(make_model, architecture):
    decoder, batch, seen = Decoder(make_model(architecture)), calibration_batches()[0], []
    states = Activations(2**30, None)
    with torch.no_grad():
        calls = block_calls(decoder, [batch], states)[0]
        hook = decoder.blocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
        expected = decoder.base(batch, use_cache=False).last_hidden_state
        hook.remove()
        x = states[0]
        assert torch.equal(x, seen[0])
        for block, (args, kwargs) in zip(decoder.blocks, calls, strict=True):
            x = block(x, *args, **kwargs)
    torch.testing.assert_close(decoder.final_norm(x) if decoder.final_norm is not None else x, expected)


def test_activations_beyond_the_budget_go_to_disk_and_come_back(tmp_path):
    folder = tmp_path / "activations"
    states, tensors = Activations(1000, folder), [torch.randn(10, 10).bfloat16() for _ in range(8)]
    for index, x in enumerate(tensors):
        states[index] = x
    assert states.on_disk == 3
    assert len(list(folder.iterdir())) == 3
    for index in (7, 0):
        states[index] = tensors[index] = torch.randn(10, 10).bfloat16()
    assert all(torch.equal(mine, x) for mine, x in zip(states, tensors, strict=True))
    states.close()
    assert not folder.exists()


def test_pruning_does_not_depend_on_where_activations_are(make_settings, make_model, tmp_path, monkeypatch):
    from pipeline.pruners import blockwise

    pruner = make_settings("pruner=wanda").pruner
    there = pruner.decide(Decoder(make_model()), parse(0.5), Context(calibration_batches(), changes={}))
    monkeypatch.setattr(blockwise, "memory_budget", lambda: 0)
    context = Context(calibration_batches(), changes={}, scratch=tmp_path / "s")
    away = pruner.decide(Decoder(make_model()), parse(0.5), context)
    assert not (tmp_path / "s").exists()
    for layer in range(4):
        assert all(torch.equal(mask, away.changes[layer].masks[k]) for k, mask in there.changes[layer].masks.items())


def test_matrices_that_share_an_input_are_reported_together(make_model):
    decoder, reported = Decoder(make_model()), []
    with linear_inputs(decoder.linears(0), lambda names, x: reported.append([n.split(".")[-2] for n in names])):
        decoder.base(torch.randint(0, 250, (1, 8)), use_cache=False)
    assert reported == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


def test_every_matrix_gets_the_input_that_its_module_sees(make_model, architecture):
    """Inputs and outputs by plain hooks on the modules, for all but experts, which have no module of their own."""
    decoder, seen, expected = Decoder(make_model(architecture)), {}, {}
    linears = [w for w in decoder.linears(1) if w.expert is None]
    hooks = [
        w.module.register_forward_pre_hook(lambda m, args, n=w.name: expected.update({n: args[0].flatten(0, -2)}))
        for w in linears
    ]

    def note(names, x):
        seen.update(dict.fromkeys(names, x))

    with torch.inference_mode(), linear_inputs(linears, note):
        decoder.base(calibration_batches()[0], use_cache=False)
    for hook in hooks:
        hook.remove()
    assert set(seen) == set(expected) == {w.name for w in linears}
    assert all(torch.equal(seen[name], expected[name]) for name in seen)


def test_experts_get_the_tokens_that_are_routed_to_them(make_model):
    decoder, counts, chosen = Decoder(make_model("mixtral")), {}, []
    linears = decoder.linears(0)
    router = decoder.blocks[0].mlp.gate.register_forward_hook(lambda m, a, out: chosen.append(out[2]))
    counting = linear_inputs(linears, lambda names, x: counts.update(dict.fromkeys(names, len(x))))
    with one_expert_at_a_time(decoder), torch.inference_mode(), counting:
        decoder.base(calibration_batches()[0], use_cache=False)
    router.remove()
    for expert in range(4):
        tokens = int((chosen[0] == expert).sum())
        for name in ("gate_up_proj", "down_proj"):
            assert counts.get(f"model.layers.0.mlp.experts.{name}.{expert}", 0) == tokens


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_an_expert_without_tokens_is_pruned_by_magnitude(make_settings, make_model, name):
    model, chosen = make_model("mixtral"), []
    with torch.no_grad():
        # All experts look the same to the router: the same two take every token.
        model.model.layers[0].mlp.gate.weight.zero_()
        hook = model.model.layers[0].mlp.gate.register_forward_hook(lambda m, a, out: chosen.append(out[2]))
        model(calibration_batches()[0])
        hook.remove()
    idle = next(expert for expert in range(4) if not (chosen[0] == expert).any())
    weight = model.model.layers[0].mlp.experts.down_proj[idle].detach().abs()
    pruner = make_settings(f"pruner={name}").pruner
    decision = pruner.decide(Decoder(model), parse(0.5), Context(calibration_batches(), changes={}))
    mask = decision.changes[0].masks["model.layers.0.mlp.experts.down_proj"][idle]
    half = weight.shape[1] // 2 if name == "wanda" else weight.numel() // 2
    assert torch.equal(mask, (lowest_per_row if name == "wanda" else lowest_overall)(weight, half))


# --- masks, moments, codes ------------------------------------------------------------------------------------------


def test_masks_are_exact_with_ties_and_refuse_what_they_cannot_do():
    ties = torch.zeros(3, 8)
    assert lowest_per_row(ties, 3).sum(1).tolist() == [3, 3, 3]
    assert lowest_overall(ties, 5).flatten().nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert n_of_m(ties, 2, 4).view(-1, 4).sum(1).tolist() == [2] * 6
    with pytest.raises(ValueError, match="multiple of 3"):
        n_of_m(ties, 1, 3)
    with pytest.raises(ValueError, match="NaN"):
        lowest_per_row(torch.tensor([[float("nan"), 1.0]]), 1)


def test_moments_are_the_sum_of_outer_products():
    x = torch.randn(5000, 700, dtype=torch.float64)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-5)):
        given_x, moments = x.to(dtype), Moments(700, x.device)
        for rows in given_x.split(1999):
            moments.add(rows)
        exact = given_x.double().T @ given_x.double() * (2 / 7)
        error = (moments.hessian(7).double() - exact).abs().max() / exact.diagonal().mean()
        assert error < tolerance
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"


def test_a_singular_hessian_takes_more_damping_and_says_so():
    direction = torch.randn(1, 64) * 1e4
    hessian = direction.T @ direction
    hessian[0, 0] -= 0.02 * hessian.diagonal().mean()
    factor, damping = inverse_factor(hessian)
    assert damping > 0.01
    assert torch.isfinite(factor).all()
    with pytest.raises(ValueError, match="stay singular"):
        inverse_factor(torch.diag(torch.tensor([1.0, -1e9])))
    with pytest.raises(ValueError, match="NaN"):
        inverse_factor(torch.full((2, 2), float("nan")))


def _problem(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator), torch.randn(300, columns, generator=generator) @ mixing


def _hessian(x: torch.Tensor) -> torch.Tensor:
    moments = Moments(x.shape[1], x.device)
    moments.add(x)
    return moments.hessian(1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), st.floats(0, 1), st.integers(0, 9))
def test_sparsegpt_prunes_exactly_what_was_asked_for(rows, columns, fraction, seed):
    weight, x = _problem(rows, columns, seed)
    pruned, mask = compensate(weight, *factorise(_hessian(x))[:2], parse(fraction))
    assert int(mask.sum()) == int(weight.numel() * fraction)
    assert (pruned[mask] == 0).all()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 3), (5, 7), (100, 150), (200, 300)])
def test_any_n_of_m(n, m):
    columns = m * -(-260 // m)
    weight, x = _problem(6, columns, 0)
    _, mask = compensate(weight, *factorise(_hessian(x))[:2], parse(f"{n}:{m}"))
    assert (mask.view(6, -1, m).sum(-1) == n).all()
    assert (n_of_m(weight.abs(), n, m).view(6, -1, m).sum(-1) == n).all()
    with pytest.raises(ValueError, match=f"multiple of {m}"):
        compensate(weight[:, 1:], *factorise(_hessian(x[:, 1:]))[:2], parse(f"{n}:{m}"))


def test_sparsegpt_keeps_outputs_better_than_wanda_and_wanda_than_magnitude():
    weight, x = _problem(64, 256, 1)
    x = x * torch.logspace(-1, 1, 256)[torch.randperm(256, generator=torch.Generator().manual_seed(0))]
    reference, sparsity = x @ weight.T, parse(0.5)
    updated, _ = compensate(weight, *factorise(_hessian(x))[:2], sparsity)
    wanda = weight.masked_fill(per_output(metric(weight, column_energy(x)), sparsity), 0)
    magnitude = weight.masked_fill(lowest_overall(weight.abs(), weight.numel() // 2), 0)
    errors = [float((x @ w.T - reference).square().mean()) for w in (updated, wanda, magnitude)]
    assert errors[0] < errors[1]
    assert errors[1] < errors[2]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(1, 40), st.integers(1, 70))
def test_rounding_uses_at_most_so_many_values_a_group_and_is_near(bits, group, columns):
    weight = torch.randn(5, columns, generator=torch.Generator().manual_seed(columns))
    rounded = round_to_nearest(weight, bits, group)
    for part, codes in zip(weight.split(group, 1), rounded.split(group, 1), strict=True):
        step = (part.amax(1).clamp(min=0) - part.amin(1).clamp(max=0)) / (2**bits - 1)
        assert all(len(row.unique()) <= 2**bits for row in codes)
        assert ((part - codes).abs() <= step[:, None] * 1.01 + 1e-7).all()
    torch.testing.assert_close(round_to_nearest(rounded, bits, group), rounded, rtol=1e-3, atol=1e-5)


def test_rounding_keeps_zeros_and_refuses_odd_widths():
    weight = torch.zeros(2, 8)
    weight[0, 3] = 1.5
    assert torch.equal(round_to_nearest(weight, 4, 4), weight)
    with pytest.raises(ValueError, match="from 2 to 8"):
        round_to_nearest(weight, 16, 4)


def test_activation_aware_rounding_is_never_worse_than_plain(make_settings, make_model):
    """By the error that it minimises, block by block; with outlier channels it is clearly better."""
    awq = make_settings("pruner=awq", "pruner.group=16").pruner
    model = make_model()
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[:2] = 40
    decision = awq.decide(Decoder(model), parse(0), Context(calibration_batches(), changes={}))
    rows = {row["sublayer"]: row for row in decision.scores}
    assert all(0 <= row["alpha"] <= 1 for row in rows.values())
    assert rows["model.layers.0.self_attn.q_proj.weight"]["alpha"] > 0


def test_moments_are_gathered_for_every_matrix_once(make_model, architecture):
    from pipeline.pruners.blockwise import CalibratedBlock

    decoder, states = Decoder(make_model(architecture)), Activations(2**30, None)
    with torch.no_grad(), one_expert_at_a_time(decoder):
        calls = block_calls(decoder, calibration_batches(), states)
        block = CalibratedBlock(decoder, 0, decoder.linears(0), states, [each[0] for each in calls], 4)
        names = [name for moments in gather(block) for group in moments for name in group]
    assert sorted(names) == sorted(w.name for w in decoder.linears(0))
