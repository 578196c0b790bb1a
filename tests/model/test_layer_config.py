"""What a configuration says block by block goes with the blocks; what only looks like that is not touched."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from pipeline.model.decoder import Decoder
from pipeline.model.layer_config import keep_layers
from pipeline.prune.checkpoint import as_checkpoint, probe_outputs, write_checkpoint
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
KEPT = [0, 2, 3]


def config_of(kind: str, **fields: object) -> PreTrainedConfig:
    return AutoConfig.for_model(kind, **deepcopy(SIZES | fields))


def test_known_fields_keep_the_values_of_the_blocks_that_are_left():
    """Also where a list of block numbers happens to have as many entries as there are blocks."""
    windows = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    config = config_of("smollm3", no_rope_layers=[1, 0, 1, 1], layer_types=windows, eos_token_id=[5, 6, 7, 8])
    keep_layers(config, KEPT, 4)
    assert config.no_rope_layers == [1, 1, 1]
    assert config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    assert config.eos_token_id == [5, 6, 7, 8]
    assert config.num_hidden_layers == 3
    experts = config_of("llama4_text", moe_layers=[0, 1, 2, 3], no_rope_layers=[1, 1, 1, 0])
    keep_layers(experts, KEPT, 4)
    assert (experts.moe_layers, experts.no_rope_layers) == ([0, 1, 2], [1, 1, 0])
    mixture = config_of("qwen2_moe", mlp_only_layers=[0], decoder_sparse_step=2)
    keep_layers(mixture, KEPT, 4)
    # Blocks 0 and 2 have no experts: the one by name, the other by its place.
    assert (mixture.mlp_only_layers, mixture.decoder_sparse_step) == ([0, 1], 1)


def test_fields_by_block_number_are_numbered_anew():
    config = config_of("llama", per_layer_config={1: {"intermediate_size": 16}, 3: {"intermediate_size": 32}})
    keep_layers(config, KEPT, 4)
    assert {int(at): fields for at, fields in config.to_dict()["per_layer_config"].items()} == {
        2: {"intermediate_size": 32}
    }


@pytest.mark.parametrize("field", [{"scales": [1, 2, 3, 4]}, {"scales": {"0": 1, "3": 2}}])
def test_a_field_that_may_be_about_the_blocks_is_refused_and_nothing_is_changed(field):
    config = config_of("smollm3", **field)
    before = config.to_dict()
    with pytest.raises(ValueError, match="4 blocks and . entries in scales.*remove scales from config.json"):
        keep_layers(config, KEPT, 4)
    assert config.to_dict() == before


def test_a_field_of_another_length_is_no_matter():
    keep_layers(config_of("smollm3", scales=[1, 2, 3], names={"a": 1, "0": 2}), KEPT, 4)


@pytest.fixture
def smollm3():
    """Make a tiny SmolLM3: one block without rotary positions, one window."""
    windows = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    fields = {"no_rope_layers": [1, 0, 1, 0], "layer_types": windows, "use_sliding_window": True, "sliding_window": 8}

    def make() -> PreTrainedModel:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config_of("smollm3", **fields)).eval()

    return make


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.arange(1, 33)[None]).logits


@pytest.mark.parametrize("gone", [(1,), (0,), (0, 3)])
def test_an_exported_checkpoint_computes_the_same_with_its_per_layer_lists(smollm3, tokenizer, tmp_path, gone):
    pruned, decision = smollm3(), Decision(blocks=gone)
    apply(pruned, decision)

    def prune() -> PreTrainedModel:
        model = smollm3()
        as_checkpoint(model, decision)
        return model

    target = tmp_path / "export"
    write_checkpoint(prune, tokenizer, target, probe_outputs(pruned), lambda folder, off: None)
    again = AutoModelForCausalLM.from_pretrained(Path(target)).eval()
    torch.testing.assert_close(logits(again), logits(pruned), rtol=1e-5, atol=1e-5)
    # What was kept are the dense model's own blocks: run them by hand, one after the other.
    dense, kept = smollm3(), [layer for layer in range(4) if layer not in gone]
    assert again.config.no_rope_layers == [dense.config.no_rope_layers[layer] for layer in kept]
    for layer, block in zip(kept, again.model.layers, strict=True):
        assert bool(block.self_attn.use_rope) == bool(dense.model.layers[layer].self_attn.use_rope)
        assert len(Decoder(again).blocks) == len(kept)


def test_a_field_that_no_list_can_say_is_caught_by_the_checkpoints_own_check(tokenizer, tmp_path):
    """GPT-2 can scale attention by the number of the block, which is another one after the removal."""

    def make() -> PreTrainedModel:
        torch.manual_seed(0)
        sizes = {"n_embd": 32, "n_head": 4, "n_layer": 4, "vocab_size": 300, "initializer_range": 0.5}
        config = AutoConfig.for_model("gpt2", **sizes, scale_attn_by_inverse_layer_idx=True)
        return AutoModelForCausalLM.from_config(config).eval()

    pruned, decision = make(), Decision(blocks=(0,))
    apply(pruned, decision)

    def prune() -> PreTrainedModel:
        model = make()
        as_checkpoint(model, decision)
        return model

    with pytest.raises(ValueError, match="cannot be exported for a gpt2 model"):
        write_checkpoint(prune, tokenizer, tmp_path / "export", probe_outputs(pruned), lambda folder, off: None)
