"""The README of an exported checkpoint: summary, scores, contents of its file, how to train it further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]

from pipeline.common.terminal import plain_table
from pipeline.model.structure import ATTENTION, MIXER, MLP

# Facts of the source that a model card states if they are known.
_SOURCE = ("base_model", "license")
_KEYS = ["task", "kind", "metric"]


def model_card(facts: Mapping[str, Any], scores: pd.DataFrame | None, dense: pd.DataFrame | None) -> str:
    """Return the card of a checkpoint in Markdown, starting with the metadata that model hubs read.

    ``facts`` are those of ``pruning.json``, ``scores`` the job's own as ``pipeline.tables.job_tables.JobTables`` gives
    them, ``dense`` the unpruned model's.
    """
    how = f"pruned by {facts['pruner']} at sparsity" if facts["accepts"] else f"changed by {facts['pruner']}, sparsity"
    sections = [
        _front_matter(facts),
        f"# {facts['model']} {how} {facts['sparsity']}",
        "\n".join(_summary(facts)),
        _loading(facts),
        _scores(facts, scores, dense),
        _contents(facts),
        _training(facts),
        _provenance(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: Mapping[str, Any]) -> str:
    source = {key: facts["source"][key] for key in _SOURCE if key in facts["source"]}
    # A pruner that accepts no sparsity removes nothing.
    tags = [*(["pruned"] if facts["accepts"] else []), facts["pruner"]]
    head = {**source, "library_name": "transformers", "tags": tags}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _summary(facts: Mapping[str, Any]) -> list[str]:
    options = {k: v for k, v in facts["identity"]["pruner"].items() if k not in ("type", "version")}
    achieved = facts["decision"]["achieved"]
    lines = [f"{achieved:.1%} of the decoder blocks' parameters are removed or zero ({facts['dtype']})."]
    if options:
        lines.append(f"Options: {', '.join(f'{key}={value}' for key, value in options.items())}.")
    if facts["calibration"]:
        lines.append(f"Calibration: {facts['calibration']}.")
    return lines


def _loading(facts: Mapping[str, Any]) -> str:
    loader = "AutoModel" if facts["encoder"] else "AutoModelForCausalLM"
    return f"""```python
from transformers import {loader}, AutoTokenizer

model = {loader}.from_pretrained("DIR", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("DIR")
```

`DIR` is this folder."""


def _scores(facts: Mapping[str, Any], scores: pd.DataFrame | None, dense: pd.DataFrame | None) -> str:
    if scores is None:
        return ""
    table = scores[[*_KEYS, "value", "stderr", "n"]].rename(columns={"value": "pruned"})
    note = ""
    if dense is not None:
        table = table.merge(dense[[*_KEYS, "value"]].rename(columns={"value": "dense"}), on=_KEYS, how="left")
        table["difference"] = table["pruned"] - table["dense"]
        table = table[[*_KEYS, "dense", "pruned", "difference", "stderr", "n"]]
        note = (
            "`dense` is the model before pruning, `difference` is pruned minus dense, `stderr` is the standard error "
            "of `pruned`.\n\n"
        )
    return f"## Scores\n\n{plain_table(table)}\n\n{note}Settings: {facts['settings']}"


def _contents(facts: Mapping[str, Any]) -> str:
    decision, lines = facts["decision"], []
    if decision["blocks"]:
        lines.append(
            f"- Blocks {_numbers(decision['blocks'])} of the dense model are removed. Later blocks move up: names in "
            "this file number the blocks that remain."
        )
    mixers = [layer for layer in decision[ATTENTION] if layer in decision["mixers"]]
    attention = [layer for layer in decision[ATTENTION] if layer not in mixers]
    for kind, layers in ((ATTENTION, attention), (MIXER, mixers), (MLP, decision[MLP])):
        if layers:
            lines.append(
                f"- Dropped {kind} sublayers: {_numbers(layers)} of the dense model. They are still in the "
                "file, but their output projections are zero, so they contribute nothing. A model loaded from this "
                "file still computes them: dropping them makes it neither smaller nor faster. They are skipped only "
                "when the pruning itself is applied to the dense model."
            )
    if facts["zeros"]:
        lines.append(
            "- Pruned weights are stored as zeros in dense matrices: they make neither the file smaller nor the model "
            "faster."
        )
    elif facts["changed"]:
        lines.append(f"- Changed weights are stored as plain {facts['dtype']}: the file is as large as the dense one.")
    lines.append("- Generation settings and tokenizer are those of the dense model.")
    lines.append(
        "- `pruning.json` contains the full pruning decision and the scores of all units. No optimizer state is saved."
    )
    return "## Contents\n\n" + "\n".join(lines)


def _training(facts: Mapping[str, Any]) -> str:
    parts = []
    if facts["zero"]:
        names = "\n".join(f'    "{name}",' for name in facts["zero"])
        parts.append(f"""Training brings dropped sublayers back: their output projections are zero, but they get
gradients like any other parameter. Freeze them before creating the optimizer:

```python
dropped = [
{names}
]
for name in dropped:
    model.get_parameter(name).requires_grad_(False)
```

An adapter on such a projection brings its sublayer back, too. With PEFT, exclude these modules:
`LoraConfig(..., exclude_modules=exclude_modules)`, where

```python
exclude_modules = sorted({{name.rpartition(".")[0] for name in dropped}})
```""")
    if facts["zeros"]:
        parts.append(f"""Training makes pruned weights nonzero again: the file contains no mask. Derive one from the
loaded model, and set these weights back to zero after every optimizer step:

```python
import torch

zeros = {{
    name: weight == 0
    for name, weight in model.named_parameters()
    if name.startswith("{facts["blocks"]}.") and weight.ndim > 1
}}


@torch.no_grad()
def keep_zeros(*_):
    for name, gone in zeros.items():
        model.get_parameter(name).masked_fill_(gone, 0)
```

`optimizer.register_step_post_hook(keep_zeros)` does so in any training loop. An adapter leaves these weights alone
until it is merged; call `keep_zeros()` after merging.""")
    return "\n\n".join(["## Further training", *parts]) if parts else ""


def _provenance(facts: Mapping[str, Any]) -> str:
    """Return the section on what each result was computed with; results of one provenance share a line."""
    roles_of: dict[str, list[str]] = {}
    for role, found in facts["provenance"].items():
        told = ", ".join(f"{name} {value}" for name, value in found.items()) or "not recorded"
        roles_of.setdefault(told, []).append(role)
    return "## Provenance\n\n" + "\n".join(f"- {', '.join(roles)}: {told}" for told, roles in roles_of.items())


def _numbers(layers: list[int]) -> str:
    return ", ".join(map(str, layers))
