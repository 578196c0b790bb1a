"""What several test files do with tiny models."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from cases import FAMILIES
from choice import some
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.choices import CONF
from pipeline.config.signature import signature
from pipeline.model.continuations import read
from pipeline.model.decoder import Decoder
from pipeline.model.experts import one_expert_at_a_time
from pipeline.prune.base import Context, Pruner
from pipeline.prune.decision import Change
from pipeline.prune.surgery import dropped

# Few tests apply to the encoder, so it comes in addition.
SOME_FAMILIES = some("model families", FAMILIES, always=["bert"])


@cache
def pruner_of(name: str) -> Pruner:
    """A pruner as its YAML makes it; composed once, since that takes longer than pruning a tiny model."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("config", overrides=[f"pruner={name}"]).pruner, _convert_="all")


@cache
def accepted(name: str) -> dict[str, Any]:
    """What a pruner says of itself: accepts, unit, calibrated."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose("config", overrides=[f"pruner={name}"]).pruner
    return signature(node._target_).constants | dict(node)


def sparsities(name: str) -> list[object]:
    """One or two of each kind that the pruner accepts; one that accepts none gets zero."""
    examples: dict[str, list[object]] = {"fraction": [0.5], "units": [2], "pattern": ["2:4"]}
    return [value for kind in accepted(name)["accepts"] for value in examples[kind]] or [0]


def calibration_batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return list(torch.randint(0, 250, (4, 24), generator=generator).split(2))


def context_for(pruner: Pruner, model: torch.nn.Module, batches: list[torch.Tensor] | None = None) -> Context:
    """A context whose scores are computed on the model itself, without a store."""

    def scores(gone: Any, candidates: Any = ()) -> list[dict[str, Any]]:
        with dropped(Decoder(model), gone):
            return pruner.importance(Decoder(model), replace(context, candidates=candidates))

    text = batches or calibration_batches()
    trajectory = read(model, [row for batch in text for row in batch.tolist()]) if pruner.compares else None
    context = Context(text, trajectory, scores=scores)
    return context


@torch.inference_mode()
def outputs_of(model: torch.nn.Module) -> torch.Tensor:
    """Logits of a fixed input; final states of an encoder."""
    output = model(torch.randint(0, 250, (2, 10), generator=torch.Generator().manual_seed(7)))
    return output.last_hidden_state if Decoder(model).structure.encoder else output.logits


def changes_of(model: torch.nn.Module, share: float) -> dict[int, Change]:
    """Random masks of every matrix, by block."""
    generator, decoder = torch.Generator().manual_seed(5), Decoder(model)
    return {
        layer: Change(
            {
                name: torch.rand(model.get_parameter(name).shape, generator=generator) < share
                for name in sorted({w.parameter for w in decoder.linears(layer)})
            }
        )
        for layer in range(len(decoder.blocks))
    }


def generate(model: torch.nn.Module, use_cache: bool) -> torch.Tensor:
    """Greedy continuation of two prompts of different lengths, padded on the left."""
    ids = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return model.generate(
        ids, attention_mask=mask, max_new_tokens=12, do_sample=False, use_cache=use_cache, eos_token_id=None
    )


def flops(model: torch.nn.Module) -> tuple[int, dict[str, int]]:
    """Counted operations of a forward pass without the output projection: in all, and by module name."""
    decoder = Decoder(model)
    with one_expert_at_a_time(decoder.model), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        decoder.base(torch.arange(16)[None], use_cache=False)
    return counter.get_total_flops(), {name: sum(c.values()) for name, c in counter.get_flop_counts().items()}


def same_sequences(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def json_lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
