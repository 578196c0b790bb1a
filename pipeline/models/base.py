"""The contract of a model source."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pipeline.component import Component, Positive, speed_only
from pipeline.decoder import architecture_of
from pipeline.store import Store


@dataclass(frozen=True)
class Model(Component):
    """Loads a language model (or an encoder) and its tokenizer.

    ``layers`` is the number of decoder blocks if it is known beforehand, which lets a wrong sparsity be refused
    before anything is loaded; it is compared with the loaded model. ``embedding`` says how the model makes one vector
    of a text, for retrieval: see ``pipeline.retrieval.embed``. It is no part of the weights' identity.
    """

    layers: Positive | None = None
    embedding: dict[str, Any] | None = speed_only(None)

    def load(self, dtype: torch.dtype, store: Store) -> PreTrainedModel:
        """The dense model in evaluation mode on the best device here. Raises ValueError in plain words."""
        raise TypeError(f"model {type(self).__name__} does not define load()")

    def placement(self, store: Store) -> dict[str, Any]:
        """Where the weights go, as options of ``load_pretrained``; nothing means all on the best device."""
        return {}

    def tokenizer(self, store: Store) -> PreTrainedTokenizerBase:
        raise TypeError(f"model {type(self).__name__} does not define tokenizer()")

    def check_layers(self, model: PreTrainedModel) -> None:
        found = model.config.num_hidden_layers
        if self.layers is not None and found != self.layers:
            raise ValueError(f"model {self.name} has {found} blocks, but its config says layers: {self.layers}")


def device() -> torch.device:
    """A CUDA device if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_dtype(name: str) -> torch.dtype:
    """``auto`` is bfloat16 where the hardware multiplies it natively, else float32; other names mean themselves."""
    if name != "auto":
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    flags = torch.cpu.get_capabilities()
    native = flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16")
    return torch.bfloat16 if native else torch.float32


# What output heads are called in checkpoints.
_HEADS = ("lm_head", "embed_out")


def load_pretrained(path: str, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """Load a checkpoint with safetensors weights only and without remote code.

    Raises ValueError for an architecture that the pipeline does not support, before the weights are read.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, revision=options.get("revision"))
    source = AutoModel if architecture_of(config).encoder else AutoModelForCausalLM
    model, loading = source.from_pretrained(
        path, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    # Embedding models are often published without an output head, which would then be random.
    model.lacks_head = any(name.startswith(_HEADS) for name in loading["missing_keys"])
    shipped = getattr(model, "generation_config", None)
    if shipped is not None:
        # Some checkpoints ship a repetition penalty or sampling settings, which would change greedy decoding.
        model.generation_config = GenerationConfig(
            bos_token_id=shipped.bos_token_id, eos_token_id=shipped.eos_token_id, pad_token_id=shipped.pad_token_id
        )
    if "offload_folder" in options:
        weakref.finalize(model, shutil.rmtree, options["offload_folder"], ignore_errors=True)
    return (model if options.get("device_map") else model.to(device())).eval()


def writes_text(model: PreTrainedModel) -> bool:
    """Whether the model has an output head that was trained: encoders and bare embedding models have none."""
    return not architecture_of(model.config).encoder and not getattr(model, "lacks_head", False)


def load_tokenizer(path: str, **options: Any) -> PreTrainedTokenizerBase:
    """Load a tokenizer without remote code; a missing padding token becomes the end-of-text token."""
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
