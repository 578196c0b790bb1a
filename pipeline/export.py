"""Write a pruned model as an ordinary Hugging Face checkpoint that loads without this package."""

from __future__ import annotations

import gc
import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.console import plain_table
from pipeline.decoder import ATTENTION, MLP, Decoder
from pipeline.models.base import load_pretrained
from pipeline.offload import resident
from pipeline.pruners.decision import Decision
from pipeline.surgery import change_weights, remove_blocks

FACTS, CARD = "pruning.json", "README.md"
# Tokens of the check that the checkpoint computes what the pruned model computes.
_PROBE = 32
# Differences, as a share of the largest output, that come from another order of summation.
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3, torch.float64: 1e-9}


def as_checkpoint(model: PreTrainedModel, decision: Decision) -> None:
    """Bring a dense model into the pruned form that a stock checkpoint can say, in place.

    Removed blocks make the configuration smaller. A dropped sublayer stays, with its output projection (and its
    bias) zero, so that it adds nothing. Changed weights are as they are.
    """
    decoder = Decoder(model)
    for layer, change in decision.changes.items():
        with resident(decoder.blocks[layer], write=True):
            change_weights(model, change)
    for kind, layers in ((ATTENTION, decision.attention), (MLP, decision.mlp)):
        for layer in layers:
            with resident(decoder.blocks[layer], write=True):
                for linear in decoder.outputs(layer, kind):
                    linear.weight.zero_()
                    bias = getattr(linear.module, "bias", None)
                    if isinstance(bias, torch.Tensor):
                        bias.data.zero_()
    if decision.blocks:
        remove_blocks(decoder, decision.blocks)


@torch.inference_mode()
def probe_outputs(model: PreTrainedModel) -> torch.Tensor:
    """What a model computes for a fixed row of tokens: logits, or final states of an encoder, (tokens, ·) float32."""
    decoder = Decoder(model)
    ids = torch.arange(1, 1 + _PROBE).remainder(model.config.vocab_size)[None].to(decoder.device)
    output = model(ids)
    result = output.last_hidden_state if decoder.architecture.encoder else output.logits
    return result[0].float().cpu()


def write_checkpoint(
    prune: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    facts: Mapping[str, Any],
    card: str,
    target: Path,
    expected: torch.Tensor,
) -> float:
    """Save the model that ``prune`` gives, with tokenizer, facts and card, under ``target``.

    The folder appears only when complete and checked: the checkpoint is loaded again and has to give the ``expected``
    probe outputs. Returns the largest difference as a share of the largest output. Raises ValueError if that is no
    rounding difference.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}.tmp")
    try:
        model = prune()
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        kind, dtype = model.config.model_type, model.dtype
        del model
        gc.collect()
        found = probe_outputs(load_pretrained(str(scratch), dtype))
        difference = float((found - expected).abs().max() / expected.abs().max())
        if not difference <= _ROUNDING.get(dtype, 0.0):
            raise ValueError(
                f"the exported checkpoint does not compute what the pruned model computes (outputs differ by "
                f"{difference:.1%}); this form of pruning cannot be exported for a {kind} model"
            )
        (scratch / FACTS).write_text(json.dumps({**facts, "output_difference": difference}, indent=1) + "\n")
        (scratch / CARD).write_text(card)
        if target.is_dir():
            target.rmdir()
        os.rename(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return difference


def exported_job(folder: Path) -> str | None:
    """The job whose export a folder holds, or None."""
    try:
        return json.loads((folder / FACTS).read_text())["job"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def versions() -> dict[str, str]:
    """Versions of what decides about the numbers."""
    names = ("torch", "transformers", "lm-eval")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def model_card(facts: Mapping[str, Any], scores: pd.DataFrame | None, dense: pd.DataFrame | None) -> str:
    """The README of a checkpoint: what it is, what was removed, how it scores beside the dense model."""
    title = f"{facts['model']} pruned by {facts['pruner']} at sparsity {facts['sparsity']}"
    lines = ["---", "library_name: transformers", "tags: [pruned]", "---", f"# {title}", "", *_removed(facts), ""]
    loader = "AutoModel" if facts["encoder"] else "AutoModelForCausalLM"
    lines += ["```python", f"from transformers import {loader}, AutoTokenizer", ""]
    lines += [f'model = {loader}.from_pretrained("DIR", dtype="auto")', "```", ""]
    if scores is not None:
        lines += ["## Scores", "", _score_table(scores, dense), "", f"Settings: {facts['settings']}", ""]
    lines += [f"Everything else, with scores of all units and versions, is in `{FACTS}`.", ""]
    return "\n".join(lines)


def _removed(facts: Mapping[str, Any]) -> list[str]:
    decision = facts["decision"]
    lines = [f"{decision['achieved']:.1%} of the decoder blocks' parameters are removed or zero."]
    if decision["blocks"]:
        lines.append(f"Removed blocks of the dense model: {_numbers(decision['blocks'])}.")
    for kind in (ATTENTION, MLP):
        if decision[kind]:
            lines.append(
                f"Dropped {kind} sublayers: {_numbers(decision[kind])}. Their output projections are zero here, so "
                "they add nothing; a runtime that skips them is faster."
            )
    if facts["calibration"]:
        lines.append(f"Calibration: {facts['calibration']}.")
    return lines


def _numbers(layers: list[int]) -> str:
    return ", ".join(map(str, layers))


def _score_table(scores: pd.DataFrame, dense: pd.DataFrame | None) -> str:
    keys = ["task", "kind", "metric"]
    table = scores[[*keys, "value", "stderr", "n"]]
    if dense is not None:
        table = table.merge(dense[[*keys, "value"]].rename(columns={"value": "dense"}), on=keys, how="left")
    return plain_table(table)
