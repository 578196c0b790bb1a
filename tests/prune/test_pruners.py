"""The contract that every pruner in conf/pruner keeps on every architecture; the commit chooses some of both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import SOME_PRUNERS
from helpers import accepted, context_for, flops, generate, outputs_of, pruner_of, sparsities

from pipeline.config.choices import choices_of
from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.model.structure import ATTENTION, MLP
from pipeline.prune.accounting import account
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply

PRUNERS = choices_of("pruner")
CASES = [(name, sparsity) for name in SOME_PRUNERS for sparsity in sparsities(name)]
LAYERS = 4


@pytest.fixture
def decide(make_model):
    """``decide("wanda", 0.5, "llama")`` gives the decision, and the model that it was made on."""

    def run(name: str, sparsity: object, architecture: str) -> tuple[Decision, torch.nn.Module]:
        pruner, model = pruner_of(name), make_model(architecture, LAYERS)
        if why := pruner.unsuited(model.config):
            pytest.skip(f"{name} {why}")
        torch.manual_seed(0)
        decision = pruner.decide(Decoder(model), parse(sparsity), context_for(pruner, model))
        return account(Decoder(make_model(architecture, LAYERS)), decision), model

    return run


@pytest.mark.parametrize(("name", "sparsity"), CASES)
def test_contract(decide, make_model, architecture, name, sparsity):
    decision, worked_on = decide(name, sparsity, architecture)
    dense, model = make_model(architecture, LAYERS), make_model(architecture, LAYERS)
    apply(model, decision)
    assert torch.isfinite(outputs_of(model)).all()
    _check_units(name, sparsity, decision)
    _check_weights(sparsity, decision, dense, model)
    _check_compute(decision, dense, model)
    _check_no_hooks(worked_on)
    if not Decoder(model).structure.encoder:
        _check_cache(decision, model)
    again, _ = decide(name, sparsity, architecture)
    assert replace(again, changes={}) == replace(decision, changes={})
    for layer, change in decision.changes.items():
        for kept, new in ((change.masks, again.changes[layer].masks), (change.weights, again.changes[layer].weights)):
            assert kept.keys() == new.keys()
            assert all(torch.equal(kept[key], new[key]) for key in kept)


def _check_units(name: str, sparsity: object, decision: Decision) -> None:
    """As many units as asked for, of the pruner's kind, and no others."""
    counts = {"block": len(decision.blocks), ATTENTION: len(decision.attention), MLP: len(decision.mlp)}
    unit = accepted(name)["unit"]
    if unit in counts:
        assert counts.pop(unit) == parse(sparsity).units_of(LAYERS)
    elif unit == "sublayer":
        dropped = counts.pop(ATTENTION) + counts.pop(MLP) + 2 * counts.pop("block")
        assert dropped == parse(sparsity).units_of(2 * LAYERS)
    assert not any(counts.values())


def _check_weights(sparsity: object, decision: Decision, dense: torch.nn.Module, model: torch.nn.Module) -> None:
    """What is asked for is zero in every matrix, or in all together where blocks differ; only matrices change."""
    matrices = {w.parameter: w for layer in range(LAYERS) for w in Decoder(dense).linears(layer)}
    if decision.drops or not decision.changes:
        return
    assert {key for c in decision.changes.values() for key in {**c.masks, **c.weights}} == set(matrices)
    wanted = parse(sparsity).n / parse(sparsity).m if isinstance(sparsity, str) else sparsity
    chosen = {row["layer"]: row["chosen"] for row in decision.scores if "chosen" in row}
    zeros, size = 0, sum(mask.numel() for change in decision.changes.values() for mask in change.masks.values())
    for layer, change in decision.changes.items():
        for key, mask in change.masks.items():
            if chosen:
                # A share of each block's own, rounded down in every row at most.
                assert 0 <= mask.numel() * chosen[layer] - int(mask.sum()) < mask.numel() / min(mask.shape), key
            else:
                # Sizes divide evenly here, so that comparison by row and by matrix ask for the same count.
                assert int(mask.sum()) == int(mask.numel() * wanted), key
            assert (model.get_parameter(key)[mask] == 0).all()
            if key not in change.weights:
                assert torch.equal(model.get_parameter(key)[~mask], dense.get_parameter(key)[~mask])
            zeros += int(mask.sum())
    assert zeros == pytest.approx(size * wanted, rel=0.01)
    for key, value in dense.named_parameters():
        if key not in matrices:
            assert torch.equal(value, model.get_parameter(key)), key
    total = sum(parameter.numel() for parameter in Decoder(dense).blocks.parameters())
    assert decision.achieved == pytest.approx(zeros / total)
    assert len(decision.achieved_by_layer) == LAYERS


def _check_compute(decision: Decision, dense: torch.nn.Module, model: torch.nn.Module) -> None:
    """What the dense model spends on the dropped modules is exactly what the pruned model spends less."""
    total, by_module = flops(dense)
    decoder = Decoder(dense)
    root = f"{type(decoder.base).__name__}.{decoder.blocks_name.removeprefix(f'{decoder.structure.base}.')}"
    spared = sum(by_module.get(f"{root}.{layer}", 0) for layer in decision.blocks)
    for kind, layers in ((ATTENTION, decision.attention), (MLP, decision.mlp)):
        for layer in set(layers) - set(decision.blocks):
            spared += sum(by_module.get(f"{root}.{layer}.{name}", 0) for name in decoder.part(layer, kind).modules)
    assert flops(model)[0] == total - spared
    assert bool(spared) == decision.drops


def _check_cache(decision: Decision, model: torch.nn.Module) -> None:
    """Decoding with the cache writes what decoding without it writes, and no slot is empty."""
    attention = LAYERS - len({*decision.blocks, *decision.attention})
    assert torch.equal(generate(model, use_cache=model.config.use_cache), generate(model, use_cache=False))
    # Where only mixers are left of attention and mixers, nothing counts positions: then there is no cache.
    if attention and model.config.use_cache:
        cache = model(torch.randint(0, 250, (1, 7)), use_cache=True).past_key_values
        assert len(cache.layers) == attention
        assert all(layer.keys.shape[-2] == 7 for layer in cache.layers if hasattr(layer, "keys"))


def _check_no_hooks(model: torch.nn.Module) -> None:
    for module in model.modules():
        assert not (module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


@pytest.mark.parametrize("name", SOME_PRUNERS)
def test_sparsity_zero_changes_nothing(decide, make_model, architecture, name):
    if name != "dense" and not accepted(name)["accepts"]:
        pytest.skip("takes no sparsity")
    decision, worked_on = decide(name, 0, architecture)
    assert not decision.drops
    assert not decision.changes
    assert decision.achieved == 0
    model = make_model(architecture, LAYERS)
    apply(model, decision)
    for subject in (model, worked_on):
        assert torch.equal(outputs_of(subject), outputs_of(make_model(architecture, LAYERS)))


@pytest.mark.rotated("all units")
def test_all_units_can_be_asked_for_or_are_refused_in_words(decide):
    for name in PRUNERS:
        unit = accepted(name)["unit"]
        if unit == "block":
            with pytest.raises(ValueError, match="leave at least one"):
                decide(name, 4, "llama")
        elif "units" in accepted(name)["accepts"]:
            decision, _ = decide(name, 1.0, "llama")
            gone = len(decision.attention) + len(decision.mlp) + 2 * len(decision.blocks)
            assert gone == (8 if unit == "sublayer" else 4)
