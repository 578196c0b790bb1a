"""Models that do not fit in memory: blocks on disk are brought in one at a time, with the same results."""

from __future__ import annotations

import gc

import pytest
import torch
from cases import SOME_AWAY
from helpers import context_for, outputs_of

from pipeline.capture.counterparts import capture_counterparts
from pipeline.common.terminal import progress
from pipeline.config.probes import PROBES
from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.model.offload import is_offloaded, resident
from pipeline.model.sources.hub import HubModel
from pipeline.model.sources.random import RandomModel
from pipeline.model.trajectory import capture_trajectory
from pipeline.prune.checkpoint import as_checkpoint
from pipeline.prune.decision import Change, Decision
from pipeline.prune.surgery import apply
from pipeline.store.artifacts import Store


@pytest.fixture(params=["llama", "gpt2", "mixtral"])
def checkpoint(request, tmp_path, make_model):
    """A saved tiny model, and how to load it whole and with most of its blocks on disk."""
    folder, store = tmp_path / "model", Store(tmp_path / "outputs")
    make_model(request.param).save_pretrained(folder)
    RandomModel(name="random").tokenizer(store).save_pretrained(folder)
    size = sum(p.numel() for p in make_model(request.param).parameters()) * 4

    def load(away: bool) -> torch.nn.Module:
        placement = {"device_map": "auto", "max_memory": {"cpu": f"{size * 0.6 / 2**20:.3f}MiB"}} if away else {}
        return HubModel(name="m", path=str(folder), **placement).load(torch.float32, store)

    return load


def test_a_block_is_in_memory_only_while_it_is_worked_on(checkpoint):
    model = checkpoint(away=True)
    assert is_offloaded(model)
    blocks = [b for b in Decoder(model).blocks if any(p.device.type == "meta" for p in b.parameters())]
    assert blocks
    with resident(blocks[0]):
        assert all(parameter.device.type == "cpu" for parameter in blocks[0].parameters())
    assert all(parameter.device.type == "meta" for parameter in blocks[0].parameters())


@pytest.mark.parametrize("name", SOME_AWAY)
def test_pruning_and_applying_give_what_they_give_in_memory(checkpoint, make_settings, name):
    pruner, sparsity = make_settings(f"pruner={name}").pruner, parse(0.5 if name != "rtn" else 0)
    whole, away = checkpoint(away=False), checkpoint(away=True)
    expected = pruner.decide(Decoder(whole), sparsity, context_for(pruner, whole))
    found = pruner.decide(Decoder(away), sparsity, context_for(pruner, away))
    assert (found.blocks, found.attention, found.mlp) == (expected.blocks, expected.attention, expected.mlp)
    for layer, change in expected.changes.items():
        for key, mask in change.masks.items():
            assert torch.equal(mask, found.changes[layer].masks[key])
    for carry_out in (apply, as_checkpoint):
        dense = checkpoint(away=False)
        pruned = checkpoint(away=True)
        carry_out(dense, expected)
        carry_out(pruned, found)
        torch.testing.assert_close(outputs_of(pruned), outputs_of(dense), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("divergence_estimate", "divergence"), ("taylor_attn", "attn_drop"), ("taylor_blocks", "shortgpt")],
)
def test_passes_backward_are_refused_in_a_sentence(checkpoint, make_settings, name, instead):
    pruner, away = make_settings(f"pruner={name}").pruner, checkpoint(away=True)
    with pytest.raises(ValueError, match=f"needs all weights in memory; give pruner={instead}, or allow more"):
        pruner.decide(Decoder(away), parse(1), context_for(pruner, away))


def test_the_layer_protocol_sees_changes_of_blocks_that_are_away(checkpoint, tokenizer):
    changes: dict[int, Change] = {}
    whole, away = checkpoint(away=False), checkpoint(away=True)
    for layer in range(4):
        names = sorted({w.parameter for w in Decoder(whole).linears(layer)})
        changes[layer] = Change({n: torch.rand(whole.get_parameter(n).shape) < 0.5 for n in names})
    dense = capture_trajectory(whole, tokenizer, PROBES[:2], 4, residual=True)
    assert capture_trajectory(away, tokenizer, PROBES[:2], 4, residual=True).tokens == dense.tokens
    expected = capture_counterparts(whole, Decision(changes=changes), dense, progress)
    found = capture_counterparts(away, Decision(changes=changes), dense, progress)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected[-1], dense.residual[dense.after[-1]])


def test_changes_without_writing_are_lost_and_with_it_are_kept(checkpoint):
    model = checkpoint(away=True)
    block = next(b for b in Decoder(model).blocks if any(p.device.type == "meta" for p in b.parameters()))
    before = outputs_of(model)
    for write in (False, True):
        with resident(block, write=write):
            for parameter in block.parameters():
                parameter.data.mul_(1.5)
        assert torch.equal(outputs_of(model), before) is not write


def test_what_was_offloaded_goes_with_the_model(checkpoint, tmp_path):
    model = checkpoint(away=True)
    with resident(Decoder(model).blocks[-1], write=True):
        next(Decoder(model).blocks[-1].parameters()).data.zero_()
    assert list((tmp_path / "outputs" / "store" / ".scratch").iterdir())
    del model
    gc.collect()
    assert not list((tmp_path / "outputs" / "store" / ".scratch").iterdir())


def test_nothing_happens_to_a_model_in_memory(make_model):
    model = make_model()
    assert not is_offloaded(model)
    before = {name: value.clone() for name, value in model.named_parameters()}
    with resident(Decoder(model).blocks[0]):
        Decoder(model).blocks[0].mlp.up_proj.weight.data.zero_()
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert changed == ["model.layers.0.mlp.up_proj.weight"]
