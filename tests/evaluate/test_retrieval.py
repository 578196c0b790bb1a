"""The retrieval suite: from data sets and a model to results, what is refused, and what results depend on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import json_lines
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from pipeline.config.choices import CONF
from pipeline.evaluate.ask import evaluate, prepare
from pipeline.evaluate.results import ITEM_COLUMNS, SCORE_COLUMNS
from pipeline.evaluate.retrieval.embed import Embedder
from pipeline.evaluate.retrieval.evaluate import DEPTH
from pipeline.evaluate.retrieval.recipe import Recipe, recipe_of
from pipeline.evaluate.suites.retrieval import RetrievalSuite
from pipeline.model.decoder import Decoder
from pipeline.store.artifacts import Store

WORDS = ["apple", "river", "storm", "violin", "glacier", "mango", "theatre", "copper"]


def write(folder: Path, documents: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, int]]) -> str:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_bytes(json_lines(*({"_id": k, "text": v} for k, v in documents.items())))
    (folder / "queries.jsonl").write_bytes(json_lines(*({"_id": k, "text": v} for k, v in queries.items())))
    rows = [f"{q}\t{d}\t{grade}\n" for q, grades in qrels.items() for d, grade in grades.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return str(folder)


@pytest.fixture
def same_texts(tmp_path) -> str:
    """Queries that are texts of documents, so that any model finds them; the last one is judged otherwise."""
    documents = {f"d{n}": f"the {word}" for n, word in enumerate(WORDS)}
    queries = {f"q{n}": f"the {word}" for n, word in enumerate(WORDS[:4])}
    qrels = {"q0": {"d0": 1}, "q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}, "q3": {"d3": 0}}
    return write(tmp_path / "same", documents, queries, qrels)


def suite(*sets: str, **fields) -> RetrievalSuite:
    return RetrievalSuite(name="beir", sets=list(sets), **fields)


def composed(group: str, choice: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[f"{group}={choice}"])[group]


@pytest.mark.parametrize("architecture", ["llama", "bert", "roberta", "mpnet", "modernbert"])
def test_results_of_a_set(same_texts, make_model, tokenizer, architecture):
    results = evaluate(make_model(architecture, 2), tokenizer, suite(same_texts), 0)
    assert list(results.scores.columns) == SCORE_COLUMNS and list(results.items.columns) == ITEM_COLUMNS
    scores = results.scores.set_index("metric")
    assert list(scores.index) == ["ndcg@10", "recall@100", "map"] and list(scores.main) == [True, False, False]
    assert set(scores.task) == {"same"} and set(scores.kind) == {"retrieval"} and set(scores.n) == {4}
    # Three queries find their own text first; nothing is relevant to the fourth.
    assert list(scores.value) == pytest.approx([0.75] * 3)
    assert list(scores.stderr) == pytest.approx([math.sqrt(0.1875 / 3)] * 3)
    assert list(results.items.score) == [1, 1, 1, 0] and list(results.items.item) == [0, 1, 2, 3]
    sample = results.samples[1]
    assert sample["prompt"] == "the river" and sample["gold"] == "d1" and sample["score"] == 1
    assert sample["completion"].startswith("d1: the river\n")
    assert sample["documents"][0] == {"id": "d1", "score": pytest.approx(1, abs=1e-5)}


def test_rankings_are_those_of_all_products(tmp_path, make_model, tokenizer):
    model = make_model("llama", 2)
    documents = {f"d{n}": f"{WORDS[n % 8]} {n * n} {WORDS[n % 5]}" for n in range(150)}
    queries = {f"q{n}": f"{n} {word}" for n, word in enumerate(WORDS)}
    qrels = {query: {f"d{7 * n}": 1, f"d{9 * n + 1}": 2} for n, query in enumerate(queries)}
    results = evaluate(model, tokenizer, suite(write(tmp_path / "s", documents, queries, qrels), batch_size=4), 0)
    embedder = Embedder(model, tokenizer, Recipe())
    products = embedder.queries(list(queries.values())) @ embedder.queries(list(documents.values())).T
    for n, query in enumerate(queries):
        ranked = [f"d{place}" for place in products[n].argsort(descending=True).tolist()]
        gains = [qrels[query].get(document, 0) / math.log2(rank + 2) for rank, document in enumerate(ranked[:10])]
        assert results.items.score[n] == pytest.approx(sum(gains) / (2 + 1 / math.log2(3)), abs=1e-6)
        assert [found["id"] for found in results.samples[n]["documents"]] == ranked[:3]


def test_a_query_does_not_find_itself_unless_that_is_relevant(tmp_path, make_model, tokenizer):
    texts = {"a": "the apple", "b": "the apple.", "c": "copper 1234"}
    queries = {"a": "the apple", "c": "copper 1234"}
    folder = write(tmp_path / "s", texts, queries, {"a": {"b": 1}, "c": {"c": 1}})
    results = evaluate(make_model("llama", 2), tokenizer, suite(folder), 0)
    assert list(results.items.score) == [1, 1]
    assert "a" not in [found["id"] for found in results.samples[0]["documents"]]


def test_rankings_have_a_depth(tmp_path, make_model, tokenizer):
    # Equal texts: all documents tie, and search keeps the first, so the last one is beyond the depth.
    documents = {f"d{n:04}": "same" for n in range(DEPTH + 1)}
    qrels = {"q": {"d0000": 1}, "r": {f"d{DEPTH:04}": 1}}
    folder = write(tmp_path / "s", documents, {"q": "same", "r": "same"}, qrels)
    results = evaluate(make_model("llama", 1), tokenizer, suite(folder, batch_size=512), 0)
    values = results.scores.set_index("metric").value
    # trec_eval puts the larger id of equal scores first, so that d0000 is the last of all that were found.
    assert values["map"] == pytest.approx(1 / DEPTH / 2)


def test_limits_and_the_models_own_recipe(same_texts, make_model, tokenizer):
    model = make_model("llama", 2)
    model.embedding_recipe = {"pooling": "last", "max_length": 4}
    results = evaluate(model, tokenizer, suite(same_texts, limit=2, documents=3), 0)
    # Cut to "the ", all texts are equal: of three documents, the relevant one comes third or second by its id.
    assert list(results.items.item) == [0, 1] and set(results.scores.n) == {2}
    assert list(results.items.score) == pytest.approx([1 / math.log2(4), 1 / math.log2(3)])
    asked = evaluate(model, tokenizer, suite(same_texts, limit=2, documents=3, max_length=64), 0)
    assert list(asked.items.score) == [1, 1]


def test_several_sets_one_after_the_other(same_texts, tmp_path, make_model, tokenizer):
    other = write(tmp_path / "other", {"x": "the storm", "y": "mango"}, {"q": "mango"}, {"q": {"y": 1}})
    results = evaluate(make_model("llama", 1), tokenizer, suite(same_texts, other), 0)
    assert list(results.scores.task) == ["same"] * 3 + ["other"] * 3
    assert math.isnan(results.scores.stderr.iloc[-1]) and results.items.item.iloc[-1] == 0
    assert [entry.task for entry in suite(same_texts, other).entries()] == ["same", "other"]


def test_what_is_wrong_is_said_at_once(same_texts, tmp_path):
    assert suite("boolq", same_texts).problems() == []
    copy = write(tmp_path / "copy" / "same", {"a": "x"}, {"q": "x"}, {"q": {"a": 1}})
    for wrong, message in (
        (suite(), "task.sets is empty"),
        (suite(3), "3 is neither a name nor a directory"),
        (suite("bolq"), "did you mean boolq"),
        (suite(str(tmp_path / "smae")), "did you mean"),
        (suite(same_texts, copy), "2 sets named same"),
        (suite(same_texts, split="dev"), "no split dev"),
        (suite(same_texts, pooling="men"), "task.pooling=men does not exist; did you mean mean"),
        (suite(same_texts, max_length=2), "at least 4"),
        (suite(same_texts, shots=3), "task.shots=3 has no effect on retrieval; leave it at null"),
        (suite(same_texts, chat_template=True), "leave it at false"),
    ):
        (problem,) = wrong.problems()
        assert message in problem


def test_preparing_reads_all_of_a_set(same_texts):
    prepare(suite("boolq", same_texts), 0)
    with (Path(same_texts) / "corpus.jsonl").open("a") as stream:
        stream.write("{oops\n")
    with pytest.raises(ValueError, match="line 9 is not valid JSON"):
        prepare(suite(same_texts), 0)


def test_results_depend_on_the_files(same_texts):
    first, task = suite(same_texts).identity(), suite(same_texts)
    assert task.identity() == first and replace(task, batch_size=1).identity() == first
    for changed in (replace(task, limit=3), replace(task, pooling="last"), replace(task, sets=["boolq"])):
        assert changed.identity() != first
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        before = suite(same_texts).identity()
        file = Path(same_texts) / name
        file.write_text(file.read_text() + "\n")
        assert suite(same_texts).identity() != before, name


def test_the_choices_are_what_they_say():
    task = instantiate(composed("task", "retrieval"), _convert_="all")
    assert task.problems() == [] and not task.writes_text
    recipe = recipe_of(instantiate(composed("model", "e5_mistral"), _convert_="all").embedding)
    assert recipe.pooling == "last" and recipe.append_eos and recipe.query_prefix.endswith("\nQuery: ")


@pytest.mark.rotated("packaged encoder")
@pytest.mark.real_model
def test_the_packaged_encoder_finds_the_passages_of_boolq(tmp_path):
    source, store = instantiate(composed("model", "minilm"), _convert_="all"), Store(tmp_path)
    model, tokenizer = source.load(torch.float32, store), source.tokenizer(store)
    # What sentence embeddings of this model are: token states of the padded batch, averaged where there is text.
    texts = ["A river runs north.", "Is there a violin in the theatre?", "Copper."]
    batch = tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    wanted = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    found = Embedder(model, tokenizer, recipe_of(source.embedding)).queries(texts)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)

    model.embedding_recipe = source.embedding
    task = suite("boolq", limit=20, documents=40, max_length=128)
    dense = evaluate(model, tokenizer, task, 0).scores.set_index("metric").value
    assert dense["ndcg@10"] > 0.95 and dense["recall@100"] == 1
    Decoder(model).keep_blocks([0, 1])
    pruned = evaluate(model, tokenizer, task, 0).scores.set_index("metric").value
    assert pruned["ndcg@10"] < dense["ndcg@10"]
