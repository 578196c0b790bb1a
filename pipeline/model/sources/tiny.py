"""Tiny random models of any type of causal model or encoder that transformers knows, for tests."""

from __future__ import annotations

import inspect
import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pipeline.model.model_types import is_encoder
from pipeline.model.sources.tiny_config import Size, default_config, depth, kinds, reduced
from pipeline.model.sources.tiny_weights import randomize

KINDS = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
TOKENS = 32
_DEEPEST = 33
# What building or running a model that does not fit raises.
UNBUILT = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
OK, OTHER, FAILED = "ok", "not a text decoder", "failed"


def tiny_config(
    kind: str,
    layers: int | None = None,
    hidden: int = 32,
    heads: int = 4,
    seed: int = 0,
    vocabulary: int = 258,
    encoder: bool = False,
) -> PretrainedConfig:
    """Build a small valid configuration of a type, with as few blocks as show every kind that the default has.

    Windows and chunks are smaller than 32 tokens; multipliers, caps and scales are drawn away from 0, 1 and None. The
    model is causal, or an ``encoder`` that reads both ways.
    """
    blocks, compact = (layers, True) if layers is not None else _fewest(kind, encoder)
    size = Size(blocks, hidden, heads, vocabulary, str(seed), compact=compact, encoder=encoder)
    return _eager(reduced(default_config(kind), size))


@cache
def _fewest(kind: str, encoder: bool) -> tuple[int, bool]:
    """Return the fewest blocks that show all kinds, and whether the kinds take turns in them."""
    default, size = default_config(kind), Size(None, 32, 4, 258, "", encoder=encoder)
    whole = _forms(_eager(reduced(default, size)))
    for blocks, compact in itertools.product(range(max(2, len(kinds(default))), _DEEPEST), (True, False)):
        config = _eager(reduced(default, replace(size, layers=blocks, compact=compact)))
        try:
            found = _forms(config)
        except ValueError:
            continue
        if whole <= found:
            return blocks, compact
    raise ValueError(f"no model of type {kind} with fewer than {_DEEPEST} blocks has all kinds of blocks; pass layers")


def _eager(config: PretrainedConfig) -> PretrainedConfig:
    # The fast implementations of attention and experts do not know every dtype and every option.
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config


def _forms(config: PretrainedConfig) -> set[str]:
    """Return a description of every different block of a model: its modules, their flags and parameters."""
    with _quiet():
        try:
            with torch.device("meta"):
                model = _built(config)
        except NotImplementedError:
            # Some types read values while they are built, which the device without memory does not have.
            model = _built(config)
    forms: set[str] = set()
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for name, module in lists:
        if not any(name.startswith(outer + ".") for outer, _ in lists):
            forms |= {f"{name} {_form(block)}" for block in module}
    return forms


def _form(block: nn.Module) -> str:
    parts = set()
    for name, module in block.named_modules():
        # Not their shapes: those may grow with the depth, as what a block reads of all blocks before it.
        weights = sorted(key for key, _ in module.named_parameters(recurse=False))
        flags = {
            key: value for key, value in vars(module).items() if isinstance(value, bool | str) and key != "training"
        }
        windows = {key: value is None for key, value in vars(module).items() if "window" in key}
        parts.add(f"{re.sub(r'[0-9]+', '#', name)} {type(module).__name__} {weights} {flags} {windows}")
    return "; ".join(sorted(parts))


def _built(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Build the causal class of a configuration, from the part of it that the class is for; the base of an encoder."""
    if is_encoder(config):
        return AutoModel.from_config(config, dtype=dtype)
    cause = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    parts = [part for part in vars(config).values() if isinstance(part, cause.config_class)]
    return (
        AutoModelForCausalLM.from_config(config, dtype=dtype)
        if not parts
        else cause._from_config(parts[0], dtype=dtype)
    )


def tiny_model(
    kind: str,
    layers: int | None = None,
    hidden: int = 32,
    heads: int = 4,
    seed: int = 0,
    vocabulary: int = 258,
    dtype: torch.dtype = torch.float32,
    encoder: bool = False,
) -> PreTrainedModel:
    """Build a tiny model of a type in evaluation mode, with all weights drawn from the seed."""
    return model_of(tiny_config(kind, layers, hidden, heads, seed, vocabulary, encoder), seed, dtype)


def model_of(config: PretrainedConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Build the model of a configuration with weights that are drawn from the seed, the same in every dtype."""
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        model = _built(config)
        randomize(model, seed)
        if dtype != torch.float32:
            exact, model = model.state_dict(), _built(config, dtype)
            # As in loading a checkpoint: parameters are cast, rotary frequencies and what the class says stay float32.
            kept = tuple(model._keep_in_fp32_modules_strict or ())
            for name, parameter in model.named_parameters():
                parameter.data = parameter.data.to(torch.float32 if any(part in name for part in kept) else dtype)
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
    try:
        model = tiny_model(kind)
    except UNBUILT as error:
        return _unfit(kind, error, None)
    blocks = depth(model.config) or depth(model.config.get_text_config())
    try:
        reason = _unlike_text(model)
    except UNBUILT as error:
        return _unfit(kind, error, model)
    own = _text_type(kind)
    if not reason and own:
        reason = f"it holds the text type {own}, which has a row of its own"
    return Trial(kind, OTHER if reason else OK, reason, model.num_parameters(), blocks)


def _unfit(kind: str, error: Exception, model: PreTrainedModel | None) -> Trial:
    """Say whether an error shows that the type needs more than token ids."""
    said, status = f"{type(error).__name__}: {error}", FAILED
    if model is not None:
        inputs = set(inspect.signature(model.forward).parameters) - {"input_ids", "inputs_embeds", "attention_mask"}
        if needed := [name for name in sorted(inputs) if re.search(rf"\b{name}\b", str(error))]:
            status, said = OTHER, f"it needs {', '.join(needed)} beside token ids ({said})"
        elif books := _codebooks(model):
            status, said = OTHER, f"its tokens are not text: it reads {books} codebooks at once"
    if status == FAILED and (own := _text_type(kind)):
        status, said = OTHER, f"it holds the text type {own}, which has a row of its own"
    return Trial(kind, status, said)


def _codebooks(model: PreTrainedModel) -> int:
    """Return how many rows of tokens a model reads for one sequence; 0 where it is not several."""
    rows = getattr(model.config, "num_codebooks", 0)
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(rows, TOKENS, dtype=torch.long))
    except UNBUILT:
        return 0
    return rows if rows > 1 else 0


def _text_type(kind: str) -> str:
    """Return the type of the text part of a configuration, if that type has a causal class of its own."""
    found = getattr(getattr(default_config(kind), "text_config", None), "model_type", "")
    return found if found in KINDS and found != kind else ""


def _unlike_text(model: PreTrainedModel) -> str:
    """Return why a model is no causal model of text, found by changing tokens; empty if it is one."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.get_text_config().vocab_size - 8, (1, TOKENS), generator=generator)
    later, earlier = tokens.clone(), tokens.clone()
    later[0, -1] = (later[0, -1] + 1) % 8
    earlier[0, :-1] = earlier[0, :-1].flip(0)
    with torch.no_grad():
        logits, ahead, behind = (model(input_ids=ids).logits for ids in (tokens, later, earlier))
    if logits.shape[:2] != tokens.shape:
        return f"its logits have the shape {tuple(logits.shape)} for {TOKENS} tokens"
    if not logits.isfinite().all():
        raise ArithmeticError("the logits are not finite")
    spread = logits.std()
    if (logits - ahead)[0, :-1].abs().max() > 1e-3 * spread:
        return "its predictions depend on later tokens"
    if (logits - behind)[0, -1].abs().max() < 1e-3 * spread:
        raise ArithmeticError("the last logits do not depend on earlier tokens")
    return ""
