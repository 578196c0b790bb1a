"""Memory of capturing and measuring, counted without computing, against what torch's profiler sees."""

from __future__ import annotations

import pytest
import torch
from allocated import allocated
from helpers import changes_of
from transformers import AutoModelForCausalLM, LlamaConfig

from pipeline.capture.counterparts import capture_counterparts
from pipeline.capture.room import Asked, capturing, kept_states
from pipeline.config.probes import PROBES, encode
from pipeline.config.schema import LAYER, OPTIONS
from pipeline.measure.layerwise import Stream, measure_stream
from pipeline.measure.room import logits_bytes, measuring
from pipeline.model.head import Head
from pipeline.model.memory import skeleton_of
from pipeline.model.trajectory import capture_trajectory
from pipeline.prune.decision import Decision

STEPS = 12
SMALL = LlamaConfig(
    hidden_size=128, intermediate_size=300, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=259, pad_token_id=256, eos_token_id=None, bos_token_id=None,
)  # fmt: skip
SEVEN = LlamaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000
)


def silent(items, what, total):
    return items


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_capturing_takes_what_is_counted(tokenizer, dtype):
    model = AutoModelForCausalLM.from_config(SMALL).to(dtype).eval()
    prompts = [len(encode(probe, tokenizer)) for probe in PROBES]
    skeleton = skeleton_of(SMALL, dtype)

    def steps_of(*protocols, changed=False):
        return capturing(skeleton, Asked(prompts, [STEPS] * len(PROBES), protocols, 0, changed))

    dense = capture_trajectory(model, tokenizer, PROBES, STEPS, residual=True)
    # Nothing ends a text of this model, so that all positions are there.
    kept = kept_states(skeleton, len(dense.final))
    assert len(dense.final) == STEPS * len(PROBES)
    assert (kept.residual, kept.final) == (dense.residual.nbytes, dense.final.nbytes)
    counted = max(step.passes + step.kept for step in steps_of())
    seen = allocated(lambda: capture_trajectory(model, tokenizer, PROBES, STEPS, residual=True))
    assert counted == pytest.approx(seen, rel=0.05)

    decision = Decision(changes=changes_of(model, 0.5))
    *_, passing, _ = steps_of(LAYER, changed=True)
    seen = allocated(lambda: capture_counterparts(model, decision, dense, silent))
    # The dense states were there before.
    there = kept.residual + kept.final
    assert passing.passes + passing.kept - there == pytest.approx(seen, rel=0.05)


@pytest.mark.parametrize(("vocabulary", "positions"), [(3000, 1500), (50_000, 500)])
def test_logits_take_what_is_counted(vocabulary, positions):
    """Also where the positions are more than are projected at once."""
    head, states = Head(torch.randn(vocabulary, 16) / 4), torch.randn(2, positions, 16)
    seen = allocated(lambda: measure_stream(Stream(states, (0,), (1,)), head, [1.0], silent))
    assert logits_bytes(vocabulary, positions, 4) == pytest.approx(seen, rel=0.05)


def test_a_large_model_is_captured_on_paper():
    """65 states of 288 positions, float32 at least; keys and values of twelve texts are more than one pass."""
    asked = Asked([60] * 12, [24] * 12, (LAYER, OPTIONS), 512, changed=False)
    needs = capturing(skeleton_of(SEVEN, torch.float32), asked)
    kept = kept_states(skeleton_of(SEVEN, torch.bfloat16), asked.positions)
    assert kept.residual == 65 * 288 * 4096 * 4
    assert max(need.kept for need in needs) == 2 * kept.residual + kept.final
    assert needs[0].passes > 2 * 32 * 12 * (60 + 24 - 1) * 4096 * 4
    # Questions pass eight at a time, with a mask of one value.
    assert needs[-1].passes > 8 * 512 * 3 * 11008 * 4
    assert measuring(skeleton_of(SEVEN, torch.float32), asked.positions, changed=False).kept < 1.1 * kept.residual
