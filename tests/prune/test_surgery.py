from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import ENCODERS
from helpers import calibration_batches, flops, generate, outputs_of

from pipeline.model.decoder import Decoder
from pipeline.model.residual import layout, tap
from pipeline.model.structure import ATTENTION, MLP
from pipeline.prune.accounting import account
from pipeline.prune.decision import Change, ChangeFiles, Decision, pack, unpack
from pipeline.prune.surgery import apply, changed_weights, dropped

DROPS = {
    "nothing": Decision(),
    "first attention": Decision(attention=(0,)),
    "attention 0 and 2": Decision(attention=(0, 2)),
    "all attention": Decision(attention=(0, 1, 2, 3)),
    "first mlp": Decision(mlp=(0,)),
    "first block": Decision(blocks=(0,)),
    "two blocks": Decision(blocks=(1, 2)),
    "blocks and attention of others": Decision(blocks=(1,), attention=(0, 1)),
    "both sublayers of a block": Decision(attention=(2,), mlp=(2,)),
}


@pytest.mark.parametrize("drop", DROPS)
def test_generation_with_the_cache_equals_generation_without(make_model, architecture, drop):
    if architecture in ENCODERS:
        pytest.skip("writes no text")
    model = make_model(architecture)
    apply(model, DROPS[drop])
    without = generate(model, use_cache=False)
    assert torch.equal(generate(model, use_cache=model.config.use_cache), without)
    assert without.shape == (2, 21)


@pytest.mark.parametrize("drop", [name for name in DROPS if name != "nothing"])
def test_compute_and_parameters_are_gone(make_model, architecture, drop):
    dense, pruned = make_model(architecture), make_model(architecture)
    decision = account(Decoder(dense), DROPS[drop])
    apply(pruned, decision)
    parameters = [sum(p.numel() for p in Decoder(model).blocks.parameters()) for model in (dense, pruned)]
    assert parameters[1] == pytest.approx(parameters[0] * (1 - decision.achieved))
    assert flops(pruned)[0] < flops(dense)[0]


def nothing(module: torch.nn.Module, args: object, output: Any) -> Any:
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)


@pytest.mark.parametrize("kind", [ATTENTION, MLP])
def test_a_dropped_sublayer_adds_nothing_to_the_residual_stream(make_model, architecture, kind):
    """As if what its modules write were zero."""
    model, reference = make_model(architecture), make_model(architecture)
    apply(model, Decision(attention=(1,) if kind == ATTENTION else (), mlp=(1,) if kind == MLP else ()))
    for module in Decoder(reference).sublayer(1, kind).exits:
        module.register_forward_hook(nothing)
    torch.testing.assert_close(outputs_of(model), outputs_of(reference), rtol=1e-5, atol=1e-6)


def test_dropping_for_a_while_is_undone(make_model, architecture):
    model = make_model(architecture)
    before, shape = outputs_of(model), str(model)
    with dropped(Decoder(model), {ATTENTION: [0, 2], MLP: [2]}):
        assert not torch.allclose(outputs_of(model), before)
    assert str(model) == shape
    assert torch.equal(outputs_of(model), before)


def test_changing_weights_for_a_while_is_undone_and_reaches_only_the_named(make_model):
    model, name, other = make_model(), "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate_proj.weight"
    before = {key: model.get_parameter(key).clone() for key in (name, other)}
    change = Change(
        masks={key: torch.ones_like(value, dtype=torch.bool) for key, value in before.items()},
        weights={name: torch.randn_like(before[name])},
    )
    with changed_weights(model, change, [name]):
        assert (model.get_parameter(name) == 0).all()
        assert torch.equal(model.get_parameter(other), before[other])
    assert all(torch.equal(model.get_parameter(key), value) for key, value in before.items())


def test_the_states_around_every_sublayer(make_model, architecture):
    """The tapped stream before a sublayer, plus what the sublayer's last module gives, is the stream after it."""
    model = make_model(architecture)
    decoder, plan, states, updates = Decoder(model), layout(Decoder(model)), {}, {}

    def add(index: int, scale: float) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: object, output: Any) -> None:
            update = output[0] if isinstance(output, tuple) else output
            # Some blocks add to it in place.
            updates[index] = updates.get(index, 0) + scale * update.clone()

        return hook

    hooks = [
        module.register_forward_hook(add(i, write.scale))
        for i, sublayer in enumerate(decoder.sublayers())
        for module, write in zip(sublayer.exits, sublayer.part.writes, strict=True)
    ]
    with torch.no_grad(), tap(decoder, lambda index, x: states.update({index: x})):
        final = decoder.base(calibration_batches()[0], use_cache=False).last_hidden_state
    assert sorted(states) == list(range(plan.states))
    for index, update in updates.items():
        before, after = states[plan.before[index]], states[plan.after[index]]
        assert before.shape == after.shape == final.shape
        torch.testing.assert_close(after, before + update.view_as(before))
    if decoder.structure.chained:
        with torch.no_grad():
            torch.testing.assert_close(decoder.final_norm(states[plan.states - 1]), final)
    for hook in hooks:
        hook.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("shape", [(3, 5), (8,), (1, 1), (7, 16), (2, 3, 4)])
def test_packed_masks_come_back(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(unpack(pack(mask), shape), mask)


def test_a_decision_survives_the_disk(tmp_path):
    change = Change({"a.weight": torch.eye(3).bool()}, {"a.weight": torch.randn(3, 3).bfloat16()}, [{"layer": 2}])
    decision = Decision(
        attention=(1,),
        changes={2: change},
        scores=[{"layer": 0, "score": 0.5}],
        achieved=0.25,
        achieved_by_layer=(0.5,),
    )
    decision.save(tmp_path)
    loaded = Decision.load(tmp_path)
    assert loaded.facts() == decision.facts()
    assert list(loaded.changes) == [2]
    assert torch.equal(loaded.changes[2].masks["a.weight"], change.masks["a.weight"])
    assert torch.equal(loaded.changes[2].weights["a.weight"], change.weights["a.weight"])
    assert loaded.changes[2].notes == change.notes


def test_finished_blocks_outlive_a_killed_run(tmp_path):
    first, second, kept = tmp_path / "a", tmp_path / "b", tmp_path / "kept"
    for folder in (first, second, kept):
        folder.mkdir()
    files = ChangeFiles(first, kept)
    files[0] = Change({"w": torch.ones(2, 2, dtype=torch.bool)})
    assert list(ChangeFiles(second, kept)) == [0]
    assert (second / "block-000.safetensors").is_file()
    with pytest.raises(KeyError):
        files[1]


def test_what_was_kept_may_be_damaged_or_vanish(tmp_path, caplog):
    first, second, kept = tmp_path / "a", tmp_path / "b", tmp_path / "kept"
    for folder in (first, second, kept):
        folder.mkdir()
    files = ChangeFiles(first, kept)
    for layer in range(2):
        files[layer] = Change({"w": torch.ones(2, 2, dtype=torch.bool)})
    path = kept / "block-001.safetensors"
    path.unlink()
    path.write_bytes(b"half a file")
    assert list(ChangeFiles(second, kept)) == [0]
    assert "recomputing it" in caplog.text
    shutil.rmtree(kept)
    files[2] = Change({"w": torch.ones(2, 2, dtype=torch.bool)})
    files[2] = Change({"w": torch.zeros(2, 2, dtype=torch.bool)})
    assert files.facts(0) == ([], 4)
    assert files.facts(2) == ([], 0)
    assert sorted(path.name for path in first.iterdir()) == [f"block-00{layer}.safetensors" for layer in range(3)]


def test_what_is_dropped_and_changed_counts_once(make_model, architecture):
    """As many are left as the pruned model has, without those that it has and that are zero."""
    dense, pruned = make_model(architecture), make_model(architecture)
    changes = {}
    for layer in range(4):
        own = [w.parameter for w in Decoder(dense).linears(layer) if Decoder(dense).belongs(w.parameter, layer, MLP)]
        changes[layer] = Change({own[-1]: torch.ones_like(dense.get_parameter(own[-1]), dtype=torch.bool)})
    decision = account(Decoder(dense), Decision(blocks=(0,), attention=(1,), mlp=(1, 2), changes=changes))
    apply(pruned, decision)
    last = changes[3].masks
    assert decision.parameters == sum(p.numel() for p in pruned.parameters()) - sum(m.numel() for m in last.values())
    assert decision.achieved_by_layer[0] == 1
    left = Decoder(pruned).blocks
    assert not any(pruned.get_parameter(name.replace("3", "2", 1)).any() for name in last) and len(left) == 3


def test_routers_are_left_alone(make_model):
    for architecture in ("mixtral", "qwen2_moe", "qwen3_moe"):
        decoder = Decoder(make_model(architecture))
        names = [w.name for layer in range(4) for w in decoder.linears(layer)]
        assert len(set(names)) == len(names)
        assert any(".experts." in name for name in names)
        assert not any(".gate." in name or "shared_expert_gate" in name for name in names)


def test_removing_blocks_keeps_what_is_said_block_by_block(make_model):
    windows, mixture = make_model("gemma3_text"), make_model("qwen2_moe")
    kinds = list(windows.config.layer_types)
    plain = [type(block.mlp).__name__ for block in Decoder(mixture).blocks]
    for model in (windows, mixture):
        apply(model, Decision(blocks=(0,)))
    assert windows.config.layer_types == kinds[1:]
    fresh = type(mixture)(mixture.config)
    assert [type(block.mlp).__name__ for block in Decoder(fresh).blocks] == plain[1:]
