"""Tiny models with seeded random weights of any supported architecture, and a tokenizer that needs no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from pipeline.config.types import Depth, Positive, Seed, Width
from pipeline.model.model_types import causal_types, encoder_types, is_encoder
from pipeline.model.sources.base import Model, device
from pipeline.store.artifacts import Store

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_WINDOWS = ("sliding_attention", "full_attention")
# Types whose sizes have the names of ``_shape``; those of all others are found by `tiny_config`.
_COMMON = (
    *("bert", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "opt", "phi", "phi3"),
    *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
)
PAD, END = "<|pad|>", "<|end|>"


@dataclass(frozen=True)
class RandomModel(Model):
    """A decoder or encoder of ``architecture`` with ``layers`` blocks of width ``hidden``.

    A type of which transformers has both is an encoder. Equal seeds give equal weights.
    """

    version: ClassVar[int] = 2
    layers: Depth | None = None
    architecture: str = "llama"
    hidden: Width = 64
    heads: Positive = 4
    seed: Seed = 0

    def load(self, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        # Deferred, as below: a job that finds its results loads no model.
        from pipeline.model.sources.tiny import UNBUILT

        if self.architecture not in (*causal_types(), *encoder_types()):
            raise ValueError(f"model.architecture={self.architecture} is no model type of the installed transformers")
        if self.architecture in _COMMON:
            return self._common(dtype, store).to(device()).eval()
        try:
            return self._tiny(dtype, store).to(device()).eval()
        except UNBUILT as error:
            raise ValueError(
                f"model.architecture={self.architecture} cannot be built this small ({type(error).__name__}: {error}); "
                "give another one, or a checkpoint of this one with model=hf model.path=DIR"
            ) from error

    def config(self, store: Store) -> PretrainedConfig | None:
        from transformers import AutoConfig

        if self.architecture not in _COMMON:
            return None
        found: PretrainedConfig = AutoConfig.for_model(
            self.architecture, **self._shape(), **_tokens(self.tokenizer(store))
        )
        return found

    def _common(self, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        from transformers import AutoModel, AutoModelForCausalLM

        config = self.config(store)
        source = AutoModel if is_encoder(config) else AutoModelForCausalLM
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = source.from_config(config)
        # Only parameters are cast, as in loading a checkpoint: rotary frequencies stay float32.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        return model

    def _tiny(self, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        """Build a model of a type whose sizes have names of their own; without ``layers``, as deep as it has kinds."""
        from transformers import GenerationConfig

        from pipeline.model.sources.tiny import model_of, tiny_config

        tokens = _tokens(self.tokenizer(store))
        config = tiny_config(
            self.architecture,
            self.layers,
            self.hidden,
            self.heads,
            self.seed,
            tokens["vocab_size"],
            is_encoder({"model_type": self.architecture}),
        )
        special = {name: tokens[name] for name in ("bos_token_id", "pad_token_id", "eos_token_id")}
        # Before it is built, since positions may begin behind the padding token.
        config.update(special)
        model = model_of(config, self.seed, dtype)
        # The class may be for a part of the configuration.
        model.config.update(special)
        if not is_encoder(config):
            # As in loading a checkpoint, without settings that change what it writes, such as a last token.
            model.generation_config = GenerationConfig(**special)
        return model

    def _shape(self) -> dict[str, Any]:
        """Return the sizes under the names that the families use for them."""
        inner, layers = 2 * self.hidden, self.layers or 4
        shape: dict[str, Any] = {
            "hidden_size": self.hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": max(1, self.heads // 2),
            "head_dim": self.hidden // self.heads,
            "max_position_embeddings": 4096,
            "initializer_range": 0.1,
        }
        windows: dict[str, Any] = {
            "sliding_window": 16,
            "layer_types": [_WINDOWS[layer % 2] for layer in range(layers)],
        }
        experts: dict[str, Any] = {
            "num_experts": 4,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": inner // 4,
        }
        special: dict[str, dict[str, Any]] = {
            "opt": {"ffn_dim": inner, "word_embed_proj_dim": self.hidden},
            "gpt2": {"n_inner": inner},
            "gemma2": windows | {"query_pre_attn_scalar": self.hidden // self.heads},
            "gemma3_text": windows | {"query_pre_attn_scalar": self.hidden // self.heads},
            "mixtral": experts,
            "qwen2_moe": experts | {"shared_expert_intermediate_size": self.hidden, "decoder_sparse_step": 2},
            "qwen3_moe": experts,
        }
        return shape | special.get(self.architecture, {})

    def tokenizer(self, store: Store) -> PreTrainedTokenizerBase:
        """Build a tokenizer with one token per byte, plus padding and end of text."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, model_max_length=4096)


def _tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
