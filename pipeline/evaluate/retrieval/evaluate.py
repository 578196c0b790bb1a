"""Retrieval on data sets: embedding, search and scores, with results in the form that every evaluation has."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.evaluate.results import SCORE_COLUMNS, Results, items_of
from pipeline.evaluate.retrieval.beir import Dataset
from pipeline.evaluate.retrieval.embed import Embedder
from pipeline.evaluate.retrieval.metrics import MAIN, per_query, summary
from pipeline.evaluate.retrieval.recipe import recipe_of
from pipeline.evaluate.retrieval.search import Hits, Search
from pipeline.evaluate.suite import RETRIEVAL
from pipeline.evaluate.suites.retrieval import RetrievalSuite

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
# Depth of rankings, which bounds MAP as it does in TREC's own runs.
DEPTH = 1000
# Number of documents that a sample shows, and of characters of each.
_SHOWN, _WIDTH = 3, 200

Run = dict[str, dict[str, float]]


def evaluate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: RetrievalSuite) -> Results:
    """Embed, search and score every set of the suite. Nothing is drawn by chance.

    The model's own recipe is its attribute ``embedding_recipe``, if it has one. Raises ValueError for a recipe or a
    set that cannot be read.
    """
    recipe = recipe_of(
        getattr(model, "embedding_recipe", None),
        pooling=suite.pooling,
        query_prefix=suite.query_prefix,
        document_prefix=suite.document_prefix,
        max_length=suite.max_length,
    )
    return score(Embedder(model, tokenizer, recipe, suite.batch_size), suite.datasets())


def score(embedder: Embedder, sets: Iterable[Dataset]) -> Results:
    """Evaluate all sets, in order. Raises ValueError if a set's files have changed since they were checked."""
    scores: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for dataset in sets:
        log.info("  %s: %d queries, %d documents", dataset.name, len(dataset.queries), dataset.size)
        run = retrieve(embedder, dataset)
        values = per_query(dataset.qrels, run)
        scores += _score_rows(dataset, values)
        for item, score in enumerate(values[MAIN]):
            items.append({"task": dataset.name, "kind": RETRIEVAL, "item": item, "score": score})
        samples += _samples(dataset, run, list(values[MAIN]))
    return Results(
        scores=pd.DataFrame(scores, columns=SCORE_COLUMNS),
        items=items_of(items),
        samples=samples,
    )


def retrieve(embedder: Embedder, dataset: Dataset) -> Run:
    """Return the scores of the best ``DEPTH`` documents of every query, best first.

    A document with the id of the query does not count as found, unless it is judged relevant: in sets that look for
    counterparts of a document, queries are documents themselves.
    """
    # One more than asked for, since one may be the query itself.
    search = Search(embedder.queries(list(dataset.queries.values())), DEPTH + 1)
    texts = (document.text for document in dataset.documents())
    for places, embeddings in embedder.documents(texts, dataset.size):
        search.add(places, embeddings)
    if search.seen != dataset.size:
        raise ValueError(f"{dataset.files.corpus} changed while it was being read; run the command again")
    hits = search.hits()
    names = _names(dataset, hits)
    run: Run = {}
    for query, scores, places in zip(dataset.queries, hits.scores.tolist(), hits.places.tolist(), strict=True):
        found = [(names[place], score) for place, score in zip(places, scores, strict=True)]
        itself = dataset.qrels[query].get(query, 0) < 1
        run[query] = dict([(name, score) for name, score in found if not (itself and name == query)][:DEPTH])
    return run


def _names(dataset: Dataset, hits: Hits) -> dict[int, str]:
    """Return the ids by place of all found documents; reads the corpus again rather than hold every id in memory."""
    wanted = set(hits.places.unique().tolist())
    return {place: document.id for place, document in enumerate(dataset.documents()) if place in wanted}


def _score_rows(dataset: Dataset, values: pd.DataFrame) -> Iterable[dict[str, Any]]:
    data = dataset.digest()
    for metric, row in summary(values).iterrows():
        yield {
            "task": dataset.name,
            "kind": RETRIEVAL,
            "metric": metric,
            "main": metric == MAIN,
            "value": row["value"],
            "stderr": row["stderr"],
            "n": len(values),
            "shots": 0,
            "higher_is_better": True,
            "averaged": metric == MAIN,
            "chance": 0.0,
            "left_out": dataset.left_out,
            "close": 0,
            "data": data,
        }


def _samples(dataset: Dataset, run: Run, scores: list[float]) -> Iterable[dict[str, Any]]:
    """Yield every query with its first documents, shortened, and the ids of the relevant ones."""
    first = {query: list(found)[:_SHOWN] for query, found in run.items()}
    shown = {name for names in first.values() for name in names}
    texts = {document.id: document.text for document in dataset.documents() if document.id in shown}
    for item, (query, score) in enumerate(zip(dataset.queries, scores, strict=True)):
        yield {
            "task": dataset.name,
            "kind": RETRIEVAL,
            "item": item,
            "prompt": dataset.queries[query],
            "completion": "\n".join(f"{name}: {_shortened(texts[name])}" for name in first[query]),
            "gold": ", ".join(name for name, grade in dataset.qrels[query].items() if grade > 0),
            "score": score,
            "query": query,
            "documents": [{"id": name, "score": run[query][name]} for name in first[query]],
        }


def _shortened(text: str) -> str:
    return textwrap.shorten(text, _WIDTH, placeholder=" …")
