"""Weights changed block after block: what each block is fed with, and what its matrices see."""

from __future__ import annotations

import pytest
import torch
from helpers import calibration_batches

from pipeline.config.sparsity import parse
from pipeline.model.activations import Activations
from pipeline.model.block_calls import block_calls
from pipeline.model.decoder import Decoder
from pipeline.model.experts import one_expert_at_a_time
from pipeline.model.linear_inputs import linear_inputs
from pipeline.model.nested import first
from pipeline.prune.base import Context
from pipeline.prune.methods.masks import lowest_overall, lowest_per_row, per_output
from pipeline.prune.methods.wanda import Wanda, column_energy, metric


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
    from pipeline.prune.methods import sparsegpt

    whole = decide("sparsegpt", 0.5)
    budget, sparsegpt._BUDGET = sparsegpt._BUDGET, 1
    try:
        single = decide("sparsegpt", 0.5)
    finally:
        sparsegpt._BUDGET = budget
    for layer in whole.changes:
        for key, mask in whole.changes[layer].masks.items():
            assert torch.equal(mask, single.changes[layer].masks[key])


def test_a_number_of_units_is_refused_also_to_a_pruner_that_another_one_calls(make_model):
    with pytest.raises(ValueError, match="sparsity=3 is a whole number of units, but pruner=wanda takes a fraction"):
        Wanda("wanda").decide(Decoder(make_model()), parse(3), Context(calibration_batches(), changes={}))


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
            x = first(block(x, *args, **kwargs))
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
    from pipeline.prune.methods import blockwise

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
    with one_expert_at_a_time(decoder.model), torch.inference_mode(), counting:
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
