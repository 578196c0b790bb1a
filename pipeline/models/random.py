"""Tiny models with seeded random weights of any supported architecture, and a tokenizer that needs no download."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from pipeline.component import Positive
from pipeline.decoder import ARCHITECTURES
from pipeline.models.base import Model, device
from pipeline.store import Store

PAD, END = "<|pad|>", "<|end|>"


@dataclass(frozen=True)
class RandomModel(Model):
    """A decoder of ``architecture`` with ``layers`` blocks of width ``hidden``; equal seeds give equal weights."""

    architecture: str = "llama"
    hidden: Positive = 64
    heads: Positive = 4
    seed: int = 0

    def load(self, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"model.architecture={self.architecture} is none of {', '.join(sorted(ARCHITECTURES))}")
        tokenizer = self.tokenizer(store)
        config = AutoConfig.for_model(
            self.architecture,
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            intermediate_size=2 * self.hidden,
            num_hidden_layers=self.layers or 4,
            num_attention_heads=self.heads,
            num_key_value_heads=max(1, self.heads // 2),
            head_dim=self.hidden // self.heads,
            max_position_embeddings=4096,
            initializer_range=0.1,
            bos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = AutoModelForCausalLM.from_config(config)
        return model.to(device(), dtype).eval()

    def tokenizer(self, store: Store) -> PreTrainedTokenizerBase:
        """One token per byte, plus padding and end of text."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, model_max_length=4096)
