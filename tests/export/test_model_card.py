"""The card of an export: what its lines do when they are run, and what it says of scores, source and provenance."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from helpers import changes_of
from tokenizers import Tokenizer

from pipeline.common.files import write_json
from pipeline.export.model_card import model_card
from pipeline.model.decoder import Decoder
from pipeline.model.sources.hub import HubModel
from pipeline.model.sources.source_card import front_matter
from pipeline.prune.checkpoint import Written, as_checkpoint, probe_outputs, write_checkpoint
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def facts(decision: Decision, **more: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "pruner": "some",
        "sparsity": "2",
        "accepts": ["units"],
        "settings": "tiny · news",
        "calibration": None,
        "dtype": "float32",
        "decision": decision.facts(),
        "identity": {"pruner": {}},
        "changed": bool(decision.changes),
        "zeros": sum(change.zeros for change in decision.changes.values()),
        "source": {},
        "provenance": {},
        "encoder": False,
        "blocks": "model.layers",
        "zero": (),
        **more,
    }


@pytest.fixture
def export(make_model, tokenizer, tmp_path):
    """``export(architecture, decision)`` gives a checkpoint's folder with its card."""

    def run(architecture: str, decision: Decision) -> Path:
        pruned, target = make_model(architecture), tmp_path / "export"
        apply(pruned, decision)

        def prune() -> Any:
            model = make_model(architecture)
            as_checkpoint(model, decision)
            return model

        def describe(folder: Path, written: Written) -> None:
            encoder = Decoder(pruned).structure.encoder
            told = facts(decision, encoder=encoder, blocks=written.blocks, zero=written.zero)
            (folder / "README.md").write_text(model_card(told, None, None))

        write_checkpoint(prune, tokenizer, target, probe_outputs(pruned), describe)
        return target

    return run


def code_of(folder: Path) -> list[str]:
    """The lines of code on a card, the first of which load the model."""
    return [block.replace('"DIR"', repr(str(folder))) for block in CODE.findall((folder / "README.md").read_text())]


def train(model: Any, optimizer: torch.optim.Optimizer) -> None:
    ids = torch.randint(0, 250, (2, 12), generator=torch.Generator().manual_seed(2))
    for _ in range(2):
        output = model(ids)
        states = output.last_hidden_state if not hasattr(output, "logits") else output.logits
        states.float().pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


OPTIMIZERS = [
    lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
]
# The output projections of block 3, which is block 1 once blocks 0 and 2 are gone, and of block 1, then 0.
PROJECTIONS = {
    "llama": ["model.layers.1.self_attn.o_proj.weight", "model.layers.0.mlp.down_proj.weight"],
    "gemma3_text": ["model.layers.1.self_attn.o_proj.weight", "model.layers.0.mlp.down_proj.weight"],
    "mixtral": ["model.layers.1.self_attn.o_proj.weight", "model.layers.0.mlp.experts.down_proj"],
    "gpt2": [f"transformer.h.{name}.c_proj.{kind}" for name in ("1.attn", "0.mlp") for kind in ("weight", "bias")],
    "opt": [
        *(f"model.decoder.layers.1.self_attn.out_proj.{kind}" for kind in ("weight", "bias")),
        *(f"model.decoder.layers.0.fc2.{kind}" for kind in ("weight", "bias")),
    ],
    "bert": [
        *(f"encoder.layer.1.attention.output.dense.{kind}" for kind in ("weight", "bias")),
        *(f"encoder.layer.0.output.dense.{kind}" for kind in ("weight", "bias")),
    ],
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
@pytest.mark.parametrize("architecture", sorted(PROJECTIONS))
def test_the_lines_on_the_card_keep_dropped_sublayers_dropped(export, architecture, make_optimizer):
    folder = export(architecture, Decision(blocks=(0, 2), attention=(3,), mlp=(1,)))
    load, freeze, exclude = code_of(folder)
    without: dict[str, Any] = {}
    exec(load, without)
    model = without["model"].train()
    train(model, make_optimizer(model.parameters()))
    assert all(model.get_parameter(name).any() for name in PROJECTIONS[architecture])

    names: dict[str, Any] = {}
    exec(load + freeze + exclude, names)
    model = names["model"].train()
    assert sorted(names["dropped"]) == sorted(PROJECTIONS[architecture])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model, make_optimizer(model.parameters()))
    for name in PROJECTIONS[architecture]:
        assert not model.get_parameter(name).any()
    # The other blocks' projections do train.
    assert sum(not torch.equal(before[n], p) for n, p in model.named_parameters()) > len(before) // 2
    # What an adapter has to leave alone, by the rule of PEFT for a list: equal names, or ends after a dot.
    assert set(names["exclude_modules"]) == {name.rpartition(".")[0] for name in PROJECTIONS[architecture]}
    modules = [name for name, _ in model.named_modules()]
    assert sum(name in names["exclude_modules"] for name in modules) == 2


def test_layers_of_like_numbers_are_not_left_out_of_an_adapter(make_model):
    """Block 1 is not block 11."""
    model = make_model("llama", layers=12)
    as_checkpoint(model, Decision(attention=(1,)))
    excluded = ["model.layers.1.self_attn.o_proj"]
    found = [name for name, _ in model.named_modules() if any(name == e or name.endswith(f".{e}") for e in excluded)]
    assert found == excluded


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mixtral"])
def test_the_lines_on_the_card_keep_pruned_weights_zero(export, make_model, architecture):
    decision = Decision(changes=changes_of(make_model(architecture), 0.5))
    load, keep = code_of(export(architecture, decision))
    gone = {name: mask for change in decision.changes.values() for name, mask in change.masks.items()}
    without: dict[str, Any] = {}
    exec(load, without)
    train(without["model"], torch.optim.AdamW(without["model"].parameters(), lr=0.01, weight_decay=0.1))
    assert all(without["model"].get_parameter(name)[mask].any() for name, mask in gone.items())

    names: dict[str, Any] = {}
    exec(load + keep, names)
    model = names["model"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    optimizer.register_step_post_hook(names["keep_zeros"])
    before = {name: model.get_parameter(name).detach().clone() for name in gone}
    train(model, optimizer)
    for name, mask in gone.items():
        assert not model.get_parameter(name)[mask].any()
        assert not torch.equal(model.get_parameter(name), before[name])
    # Merging an adapter fills them, until they are set back.
    with torch.no_grad():
        for name in gone:
            model.get_parameter(name).add_(0.1)
    names["keep_zeros"]()
    assert not any(model.get_parameter(name)[mask].any() for name, mask in gone.items())


def test_a_card_of_removed_blocks_says_what_is_gone_and_asks_for_nothing(export):
    folder = export("llama", Decision(blocks=(1,)))
    card = (folder / "README.md").read_text()
    assert "Blocks 1 of the dense model are removed." in card
    assert "Further training" not in card
    assert len(code_of(folder)) == 1


def test_scores_stand_beside_those_of_the_dense_model_with_the_difference():
    def rows(*values: float) -> pd.DataFrame:
        names = {"task": ["copying", "copying", "stories"], "kind": ["generative", "choice", "perplexity"]}
        return pd.DataFrame({**names, "metric": "m", "value": values, "stderr": 0.1, "n": 4})

    card = model_card(facts(Decision()), rows(0.25, 0.5, 40.0), rows(1.0, 0.75, 30.0))
    assert "| task | kind | metric | dense | pruned | difference | stderr | n |" in card
    assert "| copying | generative | m | 1.000 | 0.250 | -0.750 | 0.100 | 4 |" in card
    assert "| stories | perplexity | m | 30.000 | 40.000 | 10.000 | 0.100 | 4 |" in card


def test_metadata_is_what_is_known_of_the_source():
    def head(source: dict[str, str]) -> Any:
        return yaml.safe_load(model_card(facts(Decision(), source=source), None, None).split("---\n")[1])

    assert head({}) == {"library_name": "transformers", "tags": ["pruned", "some"]}
    known = {"base_model": "org/model: x", "license": "apache-2.0"}
    assert head(known) == known | {"library_name": "transformers", "tags": ["pruned", "some"]}


@pytest.mark.parametrize(
    ("card", "export_of_ours", "known"),
    [
        (None, False, {}),
        ("# no metadata", False, {}),
        ("---\nlicense: mit\nbase_model: org/parent\n---\n# x", False, {"license": "mit"}),
        ("---\nlicense: mit\nbase_model: org/parent\n---\n# x", True, {"license": "mit", "base_model": "org/parent"}),
        ("---\nlicense: [mit, other]\n---\n", False, {}),
        ("---\nlicense: {\n---\n", False, {}),
        ("---\nlicense: mit\n", False, {}),
    ],
)
def test_a_directory_is_believed_no_more_than_it_says(tmp_path, card, export_of_ours, known):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    if export_of_ours:
        write_json(tmp_path / "pruning.json", {})
    assert HubModel(name="x", path=str(tmp_path)).card() == known


def test_a_hub_id_is_the_base_model(tmp_path, monkeypatch):
    assert HubModel(name="x", path="org/model").card() == {"base_model": "org/model"}


def test_packaged_models_say_where_they_come_from(make_settings):
    assert make_settings("model=smollm2").model.card() == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "license": "apache-2.0",
    }
    assert make_settings("model=minilm").model.card() == {
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "license": "apache-2.0",
    }
    assert front_matter(Path("README.md")) == {}


def test_results_of_one_provenance_share_a_line():
    old, new = {"commit": "1a2b3c4", "torch": "2.12"}, {"commit": "1a2b3c4", "torch": "2.13"}
    card = model_card(facts(Decision(), provenance={"decision": old, "evaluation": new, "perplexity": new}), None, None)
    assert card.endswith(
        "\n- decision: commit 1a2b3c4, torch 2.12\n- evaluation, perplexity: commit 1a2b3c4, torch 2.13\n"
    )


# --- what the source has for generating ------------------------------------------------------------------------------

SETTINGS = {
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 20,
    "repetition_penalty": 1.1,
    "max_length": 77,
    "eos_token_id": [256, 257],
    "bos_token_id": 256,
}
# Settings that many a published model has, and that the library only warns about as long as they are not changed.
HALF = {"temperature": 0.6, "top_p": 0.9, "eos_token_id": 257}


@pytest.mark.parametrize("settings", [SETTINGS, HALF, None], ids=["sampling", "half", "none"])
def test_generation_settings_and_padding_are_those_of_the_source(tmp_path, make_model, tokenizer, settings):
    from transformers import AutoTokenizer

    source, target = tmp_path / "source", tmp_path / "target"
    model = make_model("llama")
    model.config.pad_token_id = None
    model.generation_config.pad_token_id = None
    model.save_pretrained(source)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    if settings is SETTINGS:
        backend.enable_truncation(max_length=512)
    padless = type(tokenizer)(tokenizer_object=backend, eos_token=tokenizer.eos_token)
    padless.save_pretrained(source)
    (source / "generation_config.json").unlink()
    if settings is not None:
        write_json(source / "generation_config.json", settings)
    hub = HubModel(name="x", path=str(source))
    expected = probe_outputs(hub.load(torch.float32, None))
    write_checkpoint(
        lambda: hub.load(torch.float32, None), hub.tokenizer(None), target, expected, lambda folder, written: None
    )
    kept = json.loads((target / "generation_config.json").read_text())
    for key, value in (settings or {}).items():
        assert kept[key] == value, key

    def of(folder: Path) -> dict[str, Any]:
        from transformers import AutoModelForCausalLM

        loaded = AutoModelForCausalLM.from_pretrained(folder).generation_config.to_dict()
        loaded.pop("_from_model_config", None)
        return loaded

    assert of(target) == of(source)
    assert kept.get("pad_token_id") is None
    assert json.loads((target / "config.json").read_text()).get("pad_token_id") is None
    assert AutoTokenizer.from_pretrained(target).pad_token is None
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "plain")
    for name in ("tokenizer_config.json", "tokenizer.json"):
        assert json.loads((target / name).read_text()) == json.loads((tmp_path / "plain" / name).read_text()), name
    # Here, the exported model still decodes greedily.
    assert HubModel(name="x", path=str(target)).load(torch.float32, None).generation_config.temperature in (None, 1.0)


def test_files_of_an_export_follow_the_umask(tmp_path, make_model, tokenizer):
    import os

    model, before = make_model(), os.umask(0o022)
    try:
        write_checkpoint(
            lambda: model, tokenizer, tmp_path / "export", probe_outputs(model), lambda folder, written: None
        )
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "export").iterdir()} == {0o644}
    assert (tmp_path / "export").stat().st_mode & 0o777 == 0o755
