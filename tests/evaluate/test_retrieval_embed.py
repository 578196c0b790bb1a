"""Embeddings: pooled final states of single, unpadded texts, on every architecture, however they are batched."""

from __future__ import annotations

import pytest
import torch

from pipeline.evaluate.retrieval.embed import Embedder, pool
from pipeline.evaluate.retrieval.recipe import POOLINGS, Recipe, recipe_of
from pipeline.model.decoder import Decoder
from pipeline.model.structure import MLP
from pipeline.prune.surgery import dropped

TEXTS = ["a", "a much longer text, which needs padding around the others", "middle sized", "", "b c"]


def alone(model, ids: list[int], pooling: str) -> torch.Tensor:
    """What the embedding of one text has to be: no batch, no padding, no mask."""
    with torch.inference_mode():
        states = Decoder(model).base(torch.tensor([ids])).last_hidden_state[0].float()
    vector = {"mean": states.mean(0), "last": states[-1], "cls": states[0]}[pooling]
    return vector / vector.norm()


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text)["input_ids"] or [tokenizer.eos_token_id]


def embedded(embedder: Embedder, texts: list[str]) -> torch.Tensor:
    """Documents, put back into their order."""
    rows: dict[int, torch.Tensor] = {}
    for places, embeddings in embedder.documents(iter(texts), len(texts)):
        assert len(places) == len(embeddings) <= embedder.batch_size
        rows |= dict(zip(places, embeddings, strict=True))
    return torch.stack([rows[place] for place in range(len(texts))])


def test_equals_texts_alone_on_every_architecture(architecture, make_model, tokenizer):
    model = make_model(architecture, 2)
    for pooling in POOLINGS:
        embedder = Embedder(model, tokenizer, Recipe(pooling), batch_size=3)
        wanted = torch.stack([alone(model, ids_of(tokenizer, text), pooling) for text in TEXTS])
        for found in (embedder.queries(TEXTS), embedded(embedder, TEXTS)):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("architecture", ["roberta", "mpnet", "modernbert"])
def test_encoders_read_both_ways_and_texts_as_long_as_their_positions(architecture, make_model, tokenizer):
    model = make_model(architecture, 2)
    texts = [*TEXTS, "long " * 300, "long " * 300 + "x"]
    embedder = Embedder(model, tokenizer, Recipe("cls", max_length=1024), batch_size=3)
    found = embedder.queries(texts)
    wanted = [alone(model, ids_of(tokenizer, text)[: embedder.max_length], "cls") for text in texts]
    torch.testing.assert_close(found, torch.stack(wanted), rtol=0, atol=2e-5)
    # The first state depends on the last token that is read.
    first, other = embedder.queries(["abcdefg", "abcdefh"])
    assert (first - other).abs().max() > 1e-3
    assert 512 <= embedder.max_length < 1024


@pytest.mark.parametrize("architecture", ["llama", "bert", "roberta", "mpnet", "modernbert", "mistral", "qwen3"])
def test_equals_texts_alone_when_pruned_and_in_bfloat16(architecture, make_model, tokenizer):
    model = make_model(architecture, 3)
    whole = Embedder(model, tokenizer, Recipe()).queries(TEXTS)
    with dropped(Decoder(model), {MLP: [1]}):
        pruned = Embedder(model, tokenizer, Recipe()).queries(TEXTS)
        wanted = torch.stack([alone(model, ids_of(tokenizer, text), "mean") for text in TEXTS])
    torch.testing.assert_close(pruned, wanted, rtol=0, atol=2e-5)
    assert not torch.allclose(pruned, whole, atol=1e-3)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    halved = Embedder(model, tokenizer, Recipe()).queries(TEXTS)
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved.norm(dim=1), torch.ones(len(TEXTS)), rtol=0, atol=1e-5)
    assert torch.cosine_similarity(halved, whole).min() > 0.99


def test_prefixes_end_and_length(make_model, tokenizer):
    model, end = make_model("llama", 2), tokenizer.eos_token_id
    recipe = Recipe("last", query_prefix="Q: ", document_prefix="D: ", append_eos=True, max_length=8)
    embedder = Embedder(model, tokenizer, recipe)
    for prefix, found in (("Q: ", embedder.queries(TEXTS)), ("D: ", embedded(embedder, TEXTS))):
        ids = [[*tokenizer(prefix + text)["input_ids"][:7], end] for text in TEXTS]
        wanted = torch.stack([alone(model, row, "last") for row in ids])
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


def test_an_end_that_the_tokenizer_adds_is_not_added_again(make_model, tokenizer):
    model = make_model("llama", 2)
    recipe = Recipe("last", append_eos=True)
    text = "x" + tokenizer.eos_token
    found = Embedder(model, tokenizer, recipe).queries([text, "x"])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


def test_texts_are_cut_where_the_model_has_no_more_positions(make_model, tokenizer):
    model = make_model("gpt2", 2)
    model.config.max_position_embeddings = 16
    found = Embedder(model, tokenizer, Recipe()).queries(["z" * 16 + "a", "z" * 16 + "b"])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_many_groups_keep_their_places(make_model, tokenizer):
    model = make_model("llama", 1)
    texts = ["w" * (1 + number * 7 % 23) + str(number) for number in range(75)]
    found = embedded(Embedder(model, tokenizer, Recipe(), batch_size=1), texts)
    torch.testing.assert_close(found, Embedder(model, tokenizer, Recipe()).queries(texts), rtol=0, atol=2e-5)


def test_states_that_are_not_finite_are_refused(make_model, tokenizer):
    model = make_model("llama", 2)
    Decoder(model).blocks[0].mlp.down_proj.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite.*dtype=float32"):
        Embedder(model, tokenizer, Recipe()).queries(TEXTS)


def test_pooling_ignores_what_stands_at_padding():
    states = torch.tensor([[[1.0, 3.0], [3.0, 5.0], [float("nan"), 9.0]]])
    mask = torch.tensor([[True, True, False]])
    assert pool(states, mask, "mean").tolist() == [[2.0, 4.0]]
    assert pool(states, mask, "last").tolist() == [[3.0, 5.0]]
    assert pool(states, mask, "cls").tolist() == [[1.0, 3.0]]


def test_recipe_of_a_model_with_what_is_asked():
    own = {"pooling": "last", "query_prefix": "Q: ", "append_eos": True, "document_prefix": None}
    assert recipe_of(None) == recipe_of({}) == Recipe()
    assert recipe_of(own) == Recipe("last", "Q: ", "", True, 512)
    assert recipe_of(own, pooling="mean", query_prefix="", max_length=None) == Recipe("mean", "", "", True, 512)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"poling": "mean"}, "unknown key poling; did you mean pooling"),
        ({"pooling": "lats"}, "lats does not exist; did you mean last"),
        ({"max_length": 1}, "at least 4"),
        ({"max_length": "long"}, "at least 4"),
    ],
)
def test_wrong_recipes_are_refused(own, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(own)
