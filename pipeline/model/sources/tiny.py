"""Tiny random models of any type of causal model that transformers knows, for tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pipeline.model.sources.tiny_config import Size, default_config, kinds, reduced
from pipeline.model.sources.tiny_weights import randomize

KINDS = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
TOKENS = 32
OK, OTHER, FAILED = "ok", "not a text decoder", "failed"


def tiny_config(
    kind: str, layers: int | None = None, hidden: int = 32, heads: int = 4, seed: int = 0, vocabulary: int = 258
) -> PretrainedConfig:
    """Build a small valid configuration of a type, with as few blocks as show every kind that the default has.

    Windows and chunks are smaller than 32 tokens; multipliers, caps and scales are drawn away from 0, 1 and None.
    """
    default = default_config(kind)
    size = Size(layers, hidden, heads, vocabulary, f"{seed}")
    if layers is not None:
        return _eager(reduced(default, size))
    whole = _forms(_eager(reduced(default, Size(None, hidden, heads, vocabulary, f"{seed}"))))
    for blocks in range(max(2, len(kinds(default))), 33):
        config = _eager(reduced(default, Size(blocks, hidden, heads, vocabulary, f"{seed}")))
        try:
            found = _forms(config)
        except ValueError:
            continue
        if whole <= found:
            return config
    return config


def _eager(config: PretrainedConfig) -> PretrainedConfig:
    config._attn_implementation = "eager"
    return config


def _forms(config: PretrainedConfig) -> set[str]:
    """Return a description of every different block of a model: its modules, their flags and parameters' shapes."""
    with torch.device("meta"), _quiet():
        try:
            model = AutoModelForCausalLM.from_config(config)
        except NotImplementedError:
            model = None
    if model is None:
        model = AutoModelForCausalLM.from_config(config)
    forms: set[str] = set()
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for name, module in lists:
        if not any(name.startswith(outer + ".") for outer, _ in lists):
            forms |= {f"{name} {_form(block)}" for block in module}
    return forms


def _form(block: nn.Module) -> str:
    parts = []
    for name, module in block.named_modules():
        shapes = {key: tuple(value.shape) for key, value in module.named_parameters(recurse=False)}
        flags = {
            key: value for key, value in vars(module).items() if isinstance(value, bool | str) and key != "training"
        }
        windows = {key: value is None for key, value in vars(module).items() if "window" in key}
        parts.append(f"{name} {type(module).__name__} {shapes} {flags} {windows}")
    return "; ".join(parts)


def tiny_model(
    kind: str,
    layers: int | None = None,
    hidden: int = 32,
    heads: int = 4,
    seed: int = 0,
    vocabulary: int = 258,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """Build a tiny model of a type in evaluation mode, with all weights drawn from the seed."""
    return model_of(tiny_config(kind, layers, hidden, heads, seed, vocabulary), seed, dtype)


def model_of(config: PretrainedConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Build the causal model of a configuration with weights that are drawn from the seed, the same in every dtype."""
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        randomize(model, seed)
        if dtype != torch.float32:
            exact = model.state_dict()
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
            model.load_state_dict(exact)
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Trial:
    """What a type turned out to be when it was tried: ``status`` is OK, OTHER or FAILED."""

    kind: str
    status: str
    reason: str = ""
    parameters: int = 0
    blocks: int = 0


def trial(kind: str) -> Trial:
    """Find out whether a type is a text decoder, by building it and giving it token ids."""
    raise NotImplementedError
