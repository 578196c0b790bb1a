"""Prunes a checkpoint with llm-compressor and prints the seconds that took, as JSON.

Runs in the environment of ``make peers``, as a file: nothing of this package is installed there.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

MODIFIERS = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}


class Batches(Dataset[dict[str, torch.Tensor]]):
    """Batches of token ids, as they are."""

    def __init__(self, batches: list[torch.Tensor]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._batches[index]}


def main(asked: dict[str, Any]) -> dict[str, float]:
    """Prune ``asked["model"]`` on the batches of ``asked["tokens"]``; write the result to ``asked["out"]`` if given.

    Returns ``seconds``: of the pruning alone, without loading and writing.
    """
    torch.set_num_threads(asked["threads"])
    model = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    batches = [ids for _, ids in sorted(load_file(asked["tokens"]).items())]
    # As ours: every matrix of the blocks, and not the output projection.
    recipe = MODIFIERS[asked["pruner"]](sparsity=asked["sparsity"], targets=["Linear"], ignore=["re:.*lm_head"])
    start = time.perf_counter()
    oneshot(model=model, processor=tokenizer, dataset=DataLoader(Batches(batches), batch_size=None), recipe=recipe)
    seconds = time.perf_counter() - start
    if asked["out"] is not None:
        model.save_pretrained(asked["out"], save_compressed=False)
    return {"seconds": seconds}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer = main(given)
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")
