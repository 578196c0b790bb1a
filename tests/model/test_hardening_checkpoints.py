"""Checkpoints from somebody else: what does not fit together is refused in one sentence, before it costs anything."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from broken_models import INDEX, WEIGHTS, change, change_tensors, ends, examples, load, loads_or_says_why, reason, save
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipeline.model.sources.base import load_pretrained, load_tokenizer, restore_shipped


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("intact"))


@pytest.fixture
def model(intact, tmp_path) -> Path:
    """A directory of one's own to spoil."""
    return Path(shutil.copytree(intact, tmp_path / "model"))


HEAD, EMBEDDING, FIRST = "lm_head.weight", "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"
TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (lambda t: t.pop(FIRST), f"lacks weights: {FIRST} would be initialized at random"),
    "missing embedding": (lambda t: t.pop(EMBEDDING), f"lacks weights: {EMBEDDING}"),
    "missing block": (lambda t: [t.pop(name) for name in list(t) if ".layers.1." in name], "lacks weights: .* and 8"),
    "another name": (lambda t: t.update({FIRST + "s": t.pop(FIRST)}), f"lacks weights: {FIRST}"),
    "left over": (lambda t: t.update({"extra.weight": torch.ones(2)}), "does not provide for: extra.weight"),
    "block too many": (
        lambda t: t.update({FIRST.replace("0", "7"): torch.ones(2)}),
        "does not provide for: model.layers.7",
    ),
    "another shape": (lambda t: t.update({FIRST: torch.ones(16, 8)}), f"{FIRST} has the shape 16×8, but config.json"),
    "transposed": (lambda t: t.update({HEAD: t[HEAD].T.contiguous()}), f"{HEAD} has the shape 16×"),
    "whole numbers": (lambda t: t.update({FIRST: torch.ones(16, 16).int()}), f"{FIRST} is I32, not floating-point"),
    "none": (lambda t: t.clear(), "contains no tensors"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_the_configuration_are_named(model, case):
    edit, expected = TENSORS[case]
    change_tensors(model, edit)
    with pytest.raises(ValueError, match=expected):
        load(model)
    reason(model)


def test_weights_that_differ_although_the_configuration_ties_them_are_refused(model):
    change(model / "config.json", tie_word_embeddings=True)
    assert f"says that {HEAD} is tied to the embedding, but the weights differ" in reason(model)
    change_tensors(model, lambda t: t.pop(HEAD))
    tied = load(model)
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


def test_a_missing_output_head_is_known_and_heads_of_other_purposes_are_left(model, tmp_path):
    change_tensors(model, lambda t: t.pop(HEAD))
    assert load(model).lacks_head
    encoder = save(tmp_path / "encoder", "bert")
    change_tensors(encoder, lambda t: t.update({"cls.predictions.bias": torch.ones(2)}))
    change_tensors(encoder, lambda t: t.pop("pooler.dense.weight"))
    assert load(encoder).num_parameters() > 0
    change_tensors(encoder, lambda t: t.update({"bert.encoder.layer.2.output.dense.bias": torch.ones(2)}))
    assert "does not provide for: bert.encoder.layer.2" in reason(encoder)


def write_shards(model: Path, named: dict[str, str]) -> None:
    """Both halves of the weights in files of their own, and an index that names ``named`` for each."""
    tensors = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    for part, file in enumerate(("a.safetensors", "b.safetensors")):
        save_file(dict(list(tensors.items())[part::2]), model / file, metadata={"format": "pt"})
    names = {name: named[("a", "b")[place % 2]] for place, name in enumerate(tensors)}
    (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("b.safetensors", None),
        ("c.safetensors", "c.safetensors is missing, but model.safetensors.index.json names it"),
        ("../b.safetensors", "which is not a .safetensors file beside it"),
        ("/etc/passwd", "which is not a .safetensors file beside it"),
        ("a.safetensors", "lacks weights"),
    ],
)
def test_an_index_names_whole_files_beside_it(model, second, expected):
    write_shards(model, {"a": "a.safetensors", "b": second})
    assert load(model) if expected is None else expected in reason(model)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"num_hidden_layers": 10**12}, "num_hidden_layers=1000000000000 should be a whole number from 1 to 10000"),
        ({"num_hidden_layers": 9_000}, "says 9000 blocks, but the weights are only 21 tensors"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True should be"),
        ({"vocab_size": 2_000_000_000}, "describes a model of .* parameters, but its weights have"),
        ({"hidden_size": 2**30, "head_dim": 2**30}, "describes a model of|cannot be loaded"),
        ({"intermediate_size": -1}, "intermediate_size=-1 should be"),
        ({"hidden_size": "16"}, "hidden_size='16' should be"),
        ({"rms_norm_eps": float("nan")}, "contains NaN or infinity"),
        ({"model_type": None}, "has no model_type"),
        ({"model_type": ["llama"]}, "should be the name of an architecture"),
        ({"model_type": "mamba"}, "lacks weights"),
        ({"hidden_act": "no such"}, "cannot be loaded"),
        ({"attn_implementation": "somebody/kernel"}, "may fetch code"),
    ],
)
def test_a_false_configuration_is_refused_before_memory_is_asked_for(model, values, expected):
    change(model / "config.json", **values)
    with at_most(2**30), pytest.raises(ValueError, match=expected):
        load_pretrained(str(model), torch.float32)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Within it, the process can map only so many bytes more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[" * 100_000),
        ("config.json", b'"llama"'),
        ("config.json", b"\xff"),
        ("tokenizer.json", b"{}"),
        ("tokenizer_config.json", b"no JSON"),
        ("generation_config.json", b"\0"),
        (WEIGHTS, b""),
        (WEIGHTS, (2**63).to_bytes(8, "little") + b"{}"),
        (WEIGHTS, (2).to_bytes(8, "little") + b"{}"),
        (INDEX, b"{}"),
    ],
)
def test_garbage_in_any_file_is_refused_in_one_sentence(model, name, content):
    if name == INDEX:
        (model / WEIGHTS).unlink()
    (model / name).write_bytes(content)
    assert reason(model)


def test_the_tokenizer_of_another_model_is_refused(model):
    change(model / "config.json", vocab_size=100)
    assert "has ids up to 255, but config.json says vocab_size: 100" in reason(model)


def test_a_padding_token_beyond_the_embedding_is_the_end_of_text_and_comes_back_in_exports(model):
    tokenizer = load_tokenizer(str(model))
    end, rows = tokenizer.eos_token, json.loads((model / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens([f"<|more{number}|>" for number in range(rows)])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(model)
    loaded = load_tokenizer(str(model))
    assert (loaded.pad_token, loaded.pad_token_id < rows) == (end, True)
    restore_shipped(loaded)
    assert loaded.pad_token == "[PAD]"


def test_a_tokenizer_without_padding_and_end_of_text_is_refused(model):
    facts = json.loads((model / "tokenizer_config.json").read_text())
    for name in ("pad_token", "eos_token"):
        facts.pop(name, None)
    (model / "tokenizer_config.json").write_text(json.dumps(facts))
    (model / "special_tokens_map.json").unlink(missing_ok=True)
    assert "neither a padding token nor an end-of-text token" in reason(model)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS]
)
def test_a_pipe_in_the_place_of_a_file_holds_nothing_up(model, name):
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    assert ends(loads_or_says_why, model)


VALUES = st.sampled_from([None, True, 0, -1, 3, 10**12, 10**30, 1.5, "", "x", "../x", "\0", [], [1], {}, {"a": 1}])


@settings(max_examples=examples(40), deadline=None)
@given(
    name=st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json"]),
    place=st.integers(0, 10_000),
    value=VALUES,
)
def test_any_value_anywhere_gives_a_model_or_one_sentence(intact, tmp_path_factory, name, place, value):
    folder = fresh(intact, tmp_path_factory)
    facts = json.loads((folder / name).read_text())
    places = list(paths_of(facts))
    *way, last = places[place % len(places)]
    node = facts
    for key in way:
        node = node[key]
    node[last] = value
    (folder / name).write_text(json.dumps(facts))
    loads_or_says_why(folder)


@settings(max_examples=examples(40), deadline=None)
@given(
    name=st.sampled_from([WEIGHTS, WEIGHTS, "config.json", "tokenizer.json"]),
    cut=st.floats(0, 1),
    bytes_=st.binary(max_size=8),
    keep=st.booleans(),
)
def test_any_bytes_anywhere_give_a_model_or_one_sentence(intact, tmp_path_factory, name, cut, bytes_, keep):
    folder = fresh(intact, tmp_path_factory)
    content = (folder / name).read_bytes()
    size = 8 + int.from_bytes(content[:8], "little") if name == WEIGHTS else len(content)
    at = int(cut * size)
    (folder / name).write_bytes(content[:at] + bytes_ + (content[at + len(bytes_) :] if keep else b""))
    loads_or_says_why(folder)


def fresh(intact: Path, factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "any"
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(intact, folder))


def paths_of(facts: dict, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in facts.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from paths_of(value, (*prefix, key))
