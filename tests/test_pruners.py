"""The contract of every pruner in conf/pruner, and what each of them promises beyond it."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir

from pipeline.check import CONF, choices_of
from pipeline.console import progress
from pipeline.decoder import SUBLAYERS, Decoder
from pipeline.pruners.base import Calibration
from pipeline.pruners.blockwise import block_inputs, linear_inputs
from pipeline.pruners.masks import lowest_overall, lowest_per_row, n_of_m
from pipeline.pruners.shortgpt import mean_cosines
from pipeline.signature import signature
from pipeline.sparsity import parse
from pipeline.surgery import achieved, apply

PRUNERS = choices_of("pruner")


@pytest.fixture
def calibration() -> Calibration:
    generator = torch.Generator().manual_seed(3)
    return Calibration(list(torch.randint(0, 250, (4, 24), generator=generator).split(2)), progress)


@pytest.fixture
def decide(make_settings, make_model, calibration):
    """``decide("wanda", 0.5)`` gives the pruner's decision, and the model pruned so."""

    def run(name: str, sparsity: object, architecture: str = "llama"):
        pruner = make_settings(f"pruner={name}").pruner
        model = make_model(architecture)
        torch.manual_seed(0)
        scores = pruner.importance(Decoder(model), calibration) if pruner.scores_once else []
        decision = pruner.decide(Decoder(model), parse(sparsity), scores, calibration)
        fresh = make_model(architecture)
        apply(fresh, decision)
        return decision, fresh

    return run


def constants(name: str) -> dict[str, object]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return signature(compose("config", overrides=[f"pruner={name}"]).pruner._target_).constants


def sparsities(name: str) -> list[object]:
    """One or two of each kind that the pruner accepts; a pruner that accepts none is dense."""
    examples = {"fraction": [0.25, 0.5], "units": [2], "pattern": ["2:4", "4:8"]}
    return [value for kind in constants(name)["accepts"] for value in examples[kind]] or [0]


CASES = [(name, sparsity) for name in PRUNERS for sparsity in sparsities(name)]


@pytest.mark.parametrize(("name", "sparsity"), CASES)
def test_pruned_models_work_and_achieve_what_was_asked(decide, make_model, architecture, name, sparsity):
    decision, model = decide(name, sparsity, architecture)
    logits = model(torch.randint(0, 250, (2, 10))).logits
    assert torch.isfinite(logits).all()
    dense = Decoder(make_model(architecture))
    share = achieved(dense, decision)
    if decision.masks:
        linear = {f"{key}.weight": m.weight for layer in range(4) for key, m in dense.linears(layer).items()}
        wanted = 0.5 if isinstance(sparsity, str) else sparsity
        for key, mask in decision.masks.items():
            # Sizes divide evenly here, so that comparison by row and by matrix ask for the same count.
            assert int(mask.sum()) == int(mask.numel() * wanted), key
            assert (model.get_parameter(key)[mask] == 0).all()
            assert torch.equal(model.get_parameter(key)[~mask], linear[key][~mask])
        assert set(decision.masks) == set(linear)
        assert share == pytest.approx(wanted, abs=0.02)
    if decision.drops:
        unit = constants(name)["unit"]
        units = {"block": decision.blocks, "attention": decision.attention, "mlp": decision.mlp}
        assert len(units.pop(unit)) == parse(sparsity).units_of(4)
        assert not any(units.values())
    assert decision.is_empty == (sparsity == 0)


@pytest.mark.parametrize("name", PRUNERS)
def test_sparsity_zero_changes_nothing(decide, make_model, name):
    decision, model = decide(name, 0)
    assert decision.is_empty
    ids = torch.randint(0, 250, (2, 10))
    assert torch.equal(model(ids).logits, make_model()(ids).logits)


@pytest.mark.parametrize(("name", "sparsity"), CASES)
def test_the_same_seed_gives_the_same_decision_and_no_hook_stays(decide, name, sparsity):
    first, model = decide(name, sparsity)
    second, _ = decide(name, sparsity)
    assert (first.blocks, first.attention, first.mlp, first.scores) == (
        second.blocks,
        second.attention,
        second.mlp,
        second.scores,
    )
    assert all(torch.equal(first.masks[key], second.masks[key]) for key in first.masks)
    for module in Decoder(model).blocks.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_deciding_leaves_no_hooks_behind(make_settings, make_model, calibration):
    for name in PRUNERS:
        pruner, model = make_settings(f"pruner={name}").pruner, make_model()
        scores = pruner.importance(Decoder(model), calibration) if pruner.scores_once else []
        pruner.decide(Decoder(model), parse(0.5 if name != "dense" else 0), scores, calibration)
        assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in model.modules())


def test_block_influence_and_sublayer_scores_follow_their_definition(make_model, calibration):
    model = make_model()
    decoder = Decoder(model)
    states = []
    with torch.inference_mode():
        for batch in calibration.batches:
            run: list[tuple[torch.Tensor, torch.Tensor]] = []

            def listen(module, args, out, run=run):
                run.append((args[0], out))

            hooks = [block.register_forward_hook(listen) for block in decoder.blocks]
            decoder.base(batch, use_cache=False)
            for hook in hooks:
                hook.remove()
            states.append(run)
    by_hand = [
        torch.cat([torch.cosine_similarity(*run[layer], dim=-1).flatten() for run in states]).mean().item()
        for layer in range(4)
    ]
    assert mean_cosines(decoder, calibration, stride=2, what="") == pytest.approx(by_hand, abs=1e-5)
    assert len(mean_cosines(decoder, calibration, stride=1, what="")) == 4 * len(SUBLAYERS)


def test_droppers_take_the_least_important(decide):
    for name, column in (("shortgpt", "blocks"), ("attn_drop", "attention"), ("mlp_drop", "mlp")):
        decision, _ = decide(name, 2)
        kind = {"blocks": "block"}.get(column, column)
        mine = sorted((row["score"], row["layer"]) for row in decision.scores if row["sublayer"] == kind)
        assert set(getattr(decision, column)) == {layer for _, layer in mine[:2]}


def test_wanda_feeds_each_block_with_its_pruned_forerunners(decide, make_model, calibration):
    """The last block's statistics must come from a model whose earlier blocks are pruned already."""
    from pipeline.pruners.masks import per_output
    from pipeline.pruners.wanda import column_energy, metric

    decision, _ = decide("wanda", 0.5)
    model, dense = make_model(), make_model()
    for name, mask in decision.masks.items():
        if ".layers.3." not in name:
            model.get_parameter(name).data.masked_fill_(mask, 0)
    name = "model.layers.3.mlp.down_proj"
    energies = []
    for subject in (model, dense):
        total = torch.zeros(128)

        def add(module, args, total=total):
            total += column_energy(args[0])

        hook = subject.get_submodule(name).register_forward_pre_hook(add)
        with torch.inference_mode():
            for batch in calibration.batches:
                subject(batch)
        hook.remove()
        energies.append(total / 4)
    weight = model.get_submodule(name).weight
    assert torch.equal(per_output(metric(weight, energies[0]), parse(0.5)), decision.masks[f"{name}.weight"])
    assert not torch.equal(per_output(metric(weight, energies[1]), parse(0.5)), decision.masks[f"{name}.weight"])


def test_block_inputs_are_what_the_blocks_get(make_model, architecture):
    decoder, ids, seen = Decoder(make_model(architecture)), torch.randint(0, 250, (2, 8)), []
    first, keywords = block_inputs(decoder, ids)
    hook = decoder.blocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    expected = decoder.base(ids, use_cache=False).last_hidden_state
    hook.remove()
    assert torch.equal(first, seen[0])
    with torch.inference_mode():
        for block, kwargs in zip(decoder.blocks, keywords, strict=True):
            first = block(first, **kwargs)
    torch.testing.assert_close(decoder.final_norm(first), expected)


def test_layers_that_share_an_input_are_reported_together(make_model):
    decoder, reported = Decoder(make_model()), []
    with linear_inputs(
        decoder.linears(0), lambda names, x: reported.append([name.rpartition(".")[2] for name in names])
    ):
        decoder.base(torch.randint(0, 250, (1, 8)), use_cache=False)
    assert reported == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


def test_masks_are_exact_with_ties_and_refuse_what_they_cannot_do():
    ties = torch.zeros(3, 8)
    assert lowest_per_row(ties, 3).sum(1).tolist() == [3, 3, 3]
    assert lowest_overall(ties, 5).flatten().nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert n_of_m(ties, 2, 4).view(-1, 4).sum(1).tolist() == [2] * 6
    with pytest.raises(ValueError, match="multiple of 3"):
        n_of_m(ties, 1, 3)
    with pytest.raises(ValueError, match="NaN"):
        lowest_per_row(torch.tensor([[float("nan"), 1.0]]), 1)
