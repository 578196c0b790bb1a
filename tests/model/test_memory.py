"""Memory counted without computing, against what the profiler of torch sees on a model that computes."""

from __future__ import annotations

import pytest
import torch
from allocated import allocated
from transformers import AutoModelForCausalLM, LlamaConfig

from pipeline.evaluate import room
from pipeline.evaluate.room import check_room
from pipeline.model.memory import pass_bytes, skeleton_of, weight_bytes
from pipeline.model.sources import base
from pipeline.model.sources.base import check_fits

SMALL = LlamaConfig(
    hidden_size=128, intermediate_size=300, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=3000,
)  # fmt: skip
SEVEN = LlamaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000
)


@pytest.mark.parametrize("cached", [False, True])
def test_a_pass_takes_what_is_counted(cached):
    model = AutoModelForCausalLM.from_config(SMALL).eval()
    ids, mask = torch.zeros(4, 90, dtype=torch.long), torch.zeros(4, 1, 90, 90)
    seen = allocated(lambda: model(ids, attention_mask=mask, use_cache=cached))
    counted = pass_bytes(skeleton_of(SMALL, torch.float32), 4, 90, cached)
    # The profiler does not see the ids and the mask, which were there before.
    assert counted - ids.nbytes - mask.nbytes == pytest.approx(seen, rel=0.05)
    assert weight_bytes(skeleton_of(SMALL, torch.float32)) == weight_bytes(model)


def test_a_large_model_is_counted_without_its_memory():
    skeleton = skeleton_of(SEVEN, torch.bfloat16)
    assert weight_bytes(skeleton) == pytest.approx(2 * 6.738e9, rel=0.01)
    one, two = (pass_bytes(skeleton, rows, 512, cached=True) for rows in (1, 2))
    keys_and_values = 2 * 32 * 512 * 4096 * 2
    assert one > keys_and_values + 512 * 32000 * 2 and two == pytest.approx(2 * one, rel=0.05)


def test_a_pass_that_does_not_fit_is_refused_with_a_size_that_does(make_model, monkeypatch):
    model = make_model()
    needed = room.needed_bytes(model, 8, 40)
    monkeypatch.setattr(room, "memory_budget", lambda device: 0)
    monkeypatch.setattr(room, "free_memory", lambda device: needed)
    check_room(model, 8, 40)
    monkeypatch.setattr(room, "free_memory", lambda device: needed // 2)
    with pytest.raises(ValueError, match=r"8 requests of up to 40 tokens needs .* give task.batch_size=4"):
        check_room(model, 8, 40)
    monkeypatch.setattr(room, "free_memory", lambda device: needed // 20)
    with pytest.raises(ValueError, match="give dtype=bfloat16, fewer task.shots"):
        check_room(model, 8, 40)


def test_weights_that_do_not_fit_are_refused_before_they_are_read(monkeypatch):
    monkeypatch.setattr(base, "free_memory", lambda device: 2**30)
    check_fits(2**30, "float32", "here")
    with pytest.raises(ValueError, match=r"takes 2 GiB of memory in float32, but 1 GiB are free; give dtype=bfloat16"):
        check_fits(2**31, "float32", "here")
    with pytest.raises(ValueError, match=r"are free; give model.device_map=auto"):
        check_fits(2**31, "bfloat16", "here")
