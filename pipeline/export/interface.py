"""Write a pruned model that is in memory as a checkpoint: the interface for Python."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.export.hf import check_free, facts_of_pruning, of_file, write_facts
from pipeline.model.borrowed import borrowed
from pipeline.model.decoder import Decoder
from pipeline.prune.checkpoint import Written, probe_outputs, put_back, write_checkpoint
from pipeline.prune.interface import Pruned, name_of
from pipeline.store.integrity import digest
from pipeline.store.origins import provenance
from pipeline.store.provenance import origin

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def export(pruned: Pruned, path: str | os.PathLike[str], tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """Write a pruned model as a checkpoint that stock transformers loads, checked to compute what it computes.

    The weights are those that the model has now, also after further training. Beside them lie ``pruning.json``, the
    decision with its scores, and ``README.md``, a model card. ::

        folder = export(pruned, "pruned/smollm2-wanda", tokenizer=tokenizer)
        AutoModelForCausalLM.from_pretrained(folder)

    Args:
        pruned: the result of `pipeline.api.prune`.
        path: a folder that does not exist yet or is empty.
        tokenizer: the tokenizer to write beside the model; without it the folder holds none.

    Returns:
        The folder. It appears only once it is complete and checked.

    Raises:
        ValueError: if something is in the place of the folder, or if the checkpoint, loaded again, does not compute
            what the pruned model computes.
    """
    model, target = pruned.model, Path(path).expanduser().absolute()
    check_free(target)
    facts, encoder = _facts(pruned), Decoder(model).structure.encoder

    def describe(folder: Path, written: Written) -> None:
        write_facts(folder, facts | of_file(written, encoder))

    with ExitStack() as stack:
        # As they came: settings of generation and padding are part of the checkpoint.
        if not hasattr(model, "shipped_generation"):
            model.shipped_generation = getattr(model, "generation_config", None)
            stack.callback(delattr, model, "shipped_generation")
        stack.enter_context(borrowed([model], None, pruned.seed))
        expected = probe_outputs(model)
        spread = len(set(getattr(model, "hf_device_map", {}).values())) > 1
        place = "auto" if spread else {"": str(Decoder(model).device)}

        def whole() -> PreTrainedModel:
            return stack.enter_context(put_back(model, pruned.dropped))

        write_checkpoint(whole, tokenizer, target, expected, describe, device_map=place)
    return target


def _facts(pruned: Pruned) -> dict[str, Any]:
    facts = facts_of_pruning(pruned.pruner, pruned.sparsity, pruned.calibration, pruned.seed, pruned.decision)
    name, identity = name_of(pruned.model), pruned.pruner.identity()
    return {
        "decision_key": digest({"model": name, "identity": identity, **facts}),
        "job": "",
        "model": name.removeprefix("model "),
        "settings": "",
        **facts,
        "dtype": str(pruned.model.dtype).removeprefix("torch."),
        "source": {},
        "identity": {"model": {"name": name.removeprefix("model ")}, "pruner": identity},
        "provenance": provenance({"decision": origin()}),
    }
