"""Checks that a checkpoint holds all of its model: a library must not fill gaps with random numbers unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.model.model_types import is_encoder
from pipeline.model.sources.folder import CONFIG, Weights

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

# Names of output heads in checkpoints.
_HEADS = ("lm_head", "embed_out")
# A projection of encoders that no embedding here reads.
_UNREAD = ("pooler.",)
# Buffers that older releases stored beside the weights and newer ones compute.
_BUFFERS = ("rotary_emb.inv_freq", "position_ids", "masked_bias", "attn.bias", "attention.bias")
# A checkpoint without its output head still holds at least half of the model's values.
_MOST_TIMES = 2
_AGAIN = "get a fresh copy of the checkpoint"


def is_head(name: str) -> bool:
    """Return whether a parameter is part of an output head."""
    return name.startswith(_HEADS)


def check_sizes(skeleton: nn.Module, weights: Weights, folder: Path) -> None:
    """Compare a model without memory (on the device ``meta``) with the tensors of its files.

    Raises ValueError if the configuration asks for far more values than the files hold, which would be random and might
    not fit in any memory, and for weights that are not floating-point numbers.
    """
    parameters = dict(skeleton.named_parameters())
    asked = sum(parameter.numel() for parameter in parameters.values())
    if asked > _MOST_TIMES * weights.values:
        raise ValueError(
            f"{folder / CONFIG} describes a model of {asked:,} parameters, but its weights have {weights.values:,}; "
            f"{_AGAIN}"
        )
    for name, kind in weights.types.items():
        if name in parameters and not kind.startswith(("F", "BF")):
            raise ValueError(f"{weights.files[name]}: {name} is {kind}, not floating-point numbers; {_AGAIN}")


def check_complete(model: PreTrainedModel, loading: Mapping[str, Any], path: str) -> None:
    """Raise ValueError unless every weight came from the checkpoint and every tensor of it has a place in the model.

    ``loading`` is the loading information of transformers. An output head may be missing, and encoders may have heads
    for other purposes.
    """
    encoder = is_encoder(model.config)
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        raise ValueError(
            f"model {path}: {name} has the shape {_shape(stored)}, but {CONFIG} expects {_shape(wanted)}; {_AGAIN}"
        )
    missing = [n for n in sorted(loading["missing_keys"]) if not is_head(n) and not (encoder and n.startswith(_UNREAD))]
    if missing:
        raise ValueError(f"model {path} lacks weights: {_listed(missing)} would be initialized at random; {_AGAIN}")
    spare = [n for n in sorted(loading["unexpected_keys"]) if not n.endswith(_BUFFERS)]
    if left := [name for name in spare if not encoder or _belongs(name, model)]:
        raise ValueError(
            f"model {path} contains tensors that {CONFIG} does not provide for: {_listed(left)}; give the {CONFIG} "
            "that belongs to these weights"
        )
    if loading["error_msgs"]:
        raise ValueError(f"model {path} cannot be loaded ({loading['error_msgs'][0]}); {_AGAIN}")
    untied = model.get_expanded_tied_weights_keys(all_submodels=True).keys() - model.all_tied_weights_keys.keys()
    if untied:
        raise ValueError(
            f"model {path}: {CONFIG} says that {_listed(sorted(untied))} is tied to the embedding, but the weights "
            f"differ; set tie_word_embeddings in {CONFIG} to what the model was trained with, or remove that tensor"
        )


def _belongs(name: str, model: nn.Module) -> bool:
    """Return whether a tensor's name begins like a part of the model, with or without the prefix of its family."""
    parts = {child for child, _ in model.named_children()}
    return bool(parts & set(name.split(".")[:2]))


def _shape(sizes: Any) -> str:
    return "×".join(map(str, sizes))


def _listed(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
