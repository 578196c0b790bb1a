"""``python -m pipeline.inspect``: what a model is made of, and what can be done with every type of transformers."""

from __future__ import annotations

import json

import pytest
from choice import some

from pipeline.inspect.__main__ import main
from pipeline.inspect.describe import describe, lines
from pipeline.inspect.trials import REFUSED, try_type
from pipeline.model.model_types import causal_types
from pipeline.model.sources.tiny import OK, tiny_model

# One type of every form: experts and low-rank attention, parallel sublayers with a shared norm, norms behind the
# sublayers, attention beside a mixer, mixers and attention by turns, blocks of one sublayer, factors, a residual sum
# inside the attention, a norm on the sum, on a sum of the scaled stream, on a sum and again behind an adapter, a bias
# that is handed on, blocks that text does not pass, several states for each token; a stream that is scaled between
# blocks, a prompt that is read in chunks, attention and MLP by turns within a block, a sublayer that reads more than
# the stream.
FORMS = (
    *("deepseek_v3", "cohere", "olmo2", "falcon_h1", "qwen3_next", "nemotron_h", "granite", "bloom", "openai-gpt"),
    *("minimax", "xmod", "gpt_neox_japanese", "mllama", "prophetnet"),
    *("rwkv", "xlstm", "longcat_flash", "zamba2"),
)
# Positions from the padding token, attention to a window by turns, a bias that all blocks share.
ENCODERS = ("bert", "roberta", "xlm-roberta", "mpnet", "modernbert", "deberta-v2", "distilbert", "nomic_bert", "gte")
# Their blocks do something else than adding to the stream.
OTHER_FORMS = {
    "doge": "does not return its input with the outputs of modules added",
    "hrm_text": "run in the order",
    "beam": "scales its residual stream by 0.57735: it returns 0.57735·stream + 0.57735·post_attention_layernorm + ",
    "xlnet": "without the stream that it was given: rel_attn adds to the stream what no module of its own returns",
    "blt": "not from the last state of model.global_transformer.layers, which model.local_decoder.patch_embedding",
}


@pytest.mark.parametrize("kind", some("model types", causal_types(), always=FORMS))
def test_everything_that_pruning_does_works_on_a_type(kind):
    """Or the type is refused by name before anything is done; nothing goes wrong on the way."""
    outcome = try_type(kind)
    assert outcome.status != "failed", outcome.reason
    assert outcome.status == OK or outcome.reason
    assert kind not in FORMS or outcome.status == OK, outcome.reason


@pytest.mark.parametrize("kind", some("encoders", ENCODERS, always=("mpnet", "modernbert")))
def test_everything_that_pruning_does_works_on_an_encoder(kind):
    outcome = try_type(kind, encoder=True)
    assert outcome.status == OK, outcome.reason


@pytest.mark.parametrize(("kind", "why"), OTHER_FORMS.items())
def test_other_forms_are_refused_by_name(kind, why):
    outcome = try_type(kind)
    assert outcome.status == REFUSED and why in outcome.reason and kind.split("_")[0] in outcome.reason


def test_a_model_is_described_and_proven(capsys):
    assert main(["model=random", "model.architecture=granite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [part["kind"] for part in found["blocks"][0]["sublayers"]] == ["attention", "mlp"]
    assert found["blocks"][0]["sublayers"][0]["times"][0] not in (0, 1) and found["head"]["logits times"] != 1
    assert max(found["proof"].values()) < 1e-5 and not any(found["pruners"].values())


def test_the_description_fits_a_terminal_and_names_what_does_not_work(capsys):
    assert main(["model=random", "model.architecture=bert"]) == 0
    text = capsys.readouterr().out
    assert "norms: attention.output.LayerNorm on the sum" in text and "bert is an encoder" in text


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("mllama", "blocks at model.layers without 3, which text does not pass"),
        ("xlm", "blocks at transformer.attentions + transformer.layer_norm1 + transformer.ffns"),
        ("minimax", " + stream × "),
    ],
)
def test_a_description_says_where_blocks_are_and_what_becomes_of_the_stream(kind, said):
    assert said in "\n".join(lines(describe(tiny_model(kind))))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("squeezebert", "it has no list of blocks"),
        ("perceiver", "it does not read 13 token ids alone"),
        ("esm", "small"),
    ],
)
def test_an_encoder_that_is_not_known_is_refused_by_name(kind, why, capsys):
    assert main(["model=random", f"model.architecture={kind}"]) == 2
    said = capsys.readouterr().err
    assert kind in said and why in said


def test_types_are_listed_with_their_status(capsys):
    assert main(["--all", "--json", "musicgen", "doge"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["type"], each["status"]) for each in found] == [
        ("musicgen", "not a text decoder"),
        ("doge", "refused"),
    ]
    assert all(set(each) == {"type", "status", "reason"} for each in found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=smol"], "did you mean smollm2"),
        (["--all", "lama"], "did you mean llama"),
        (["sparsity=2"], "give the model as model=NAME"),
    ],
)
def test_mistakes_are_named(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err
