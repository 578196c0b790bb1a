"""A sublayer that reads the stream plus what another module makes of the stream is one with that module."""

from __future__ import annotations

from types import MethodType

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.inspect.tiny_models import silenced
from pipeline.model.block_form import Unfit
from pipeline.model.decoder import Decoder
from pipeline.model.proof import ROUNDING, drops, equations
from pipeline.model.residual import layout, tap
from pipeline.model.sources.tiny import model_of, tiny_config
from pipeline.model.structure import ATTENTION
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply

IDS = torch.arange(3, 23)[None]
SHARED = {"zamba": "shared_transf", "zamba2": "shared_transformer"}


@pytest.mark.parametrize("kind", SHARED)
def test_a_shared_transformer_before_a_mixer_is_one_sublayer_with_it(kind):
    decoder = Decoder(model_of(tiny_config(kind)))
    hybrid = [at for at, block in enumerate(decoder.blocks) if hasattr(block, SHARED[kind])]
    assert hybrid and len(hybrid) < len(decoder.blocks)
    for at, block in enumerate(decoder.structure.blocks):
        (part,) = block.parts
        assert part.kind == ATTENTION and part.mixer == (at not in hybrid)
        if at in hybrid:
            assert part.entry == SHARED[kind]
            inner = "mamba_decoder"
            assert part.modules == (SHARED[kind], "linear", f"{inner}.input_layernorm", f"{inner}.mamba")


@pytest.mark.parametrize("kind", SHARED)
@torch.inference_mode()
def test_it_is_captured_and_dropped_as_a_whole(kind):
    dense = model_of(tiny_config(kind))
    decoder, plan, states = Decoder(dense), layout(Decoder(dense)), {}
    for prove_one in (equations, drops):
        assert all(error <= ROUNDING[torch.float32] for error, _ in prove_one(decoder))
    with tap(decoder, lambda index, x: states.update({index: x.clone()})):
        hidden = dense(IDS, use_cache=False, output_hidden_states=True).hidden_states
    for at, (before, after) in enumerate(zip(plan.before, plan.after, strict=True)):
        torch.testing.assert_close(states[before], hidden[at])
        if at + 1 < len(decoder.blocks):
            torch.testing.assert_close(states[after], hidden[at + 1])
    for layer in range(len(decoder.blocks)):
        decision, pruned = Decision(attention=(layer,)), model_of(tiny_config(kind))
        with silenced(decoder, decision):
            expected = dense(IDS, use_cache=False).logits
        apply(pruned, decision)
        torch.testing.assert_close(pruned(IDS, use_cache=False).logits, expected)
        # Nothing of it is left but what the block itself has.
        assert not list(Decoder(pruned).blocks[layer].parameters())


def llama_that_reads(source: str) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = AutoConfig.for_model("llama", **sizes, num_attention_heads=4, num_key_value_heads=2)
    model = AutoModelForCausalLM.from_config(config).eval()

    def forward(self, hidden_states, **kwargs):
        x, attention = hidden_states, self.self_attn(self.input_layernorm(hidden_states), **kwargs)[0]
        y = x + attention
        mixed = self.extra({"same": y, "earlier": x, "constant": torch.ones(x.shape)}[source])
        return y + self.mlp(self.post_attention_layernorm(y + mixed))

    for block in model.model.layers:
        block.extra = nn.Linear(32, 32)
        block.forward = MethodType(forward, block)
    return model


def test_what_is_read_beside_the_stream_has_to_be_made_of_the_same_stream():
    part = Decoder(llama_that_reads("same")).part(0, "mlp")
    assert part.modules == ("extra", "post_attention_layernorm", "mlp") and part.entry == "extra"
    for source in ("earlier", "constant"):
        with pytest.raises(Unfit, match="reads the stream plus extra, which is not added to it"):
            Decoder(llama_that_reads(source)).part(0, "mlp")
