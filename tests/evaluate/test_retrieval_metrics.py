"""trec_eval's metrics: against the formulas written out, and against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import chosen

from pipeline.evaluate.retrieval.metrics import MAP, NDCG, RECALL, per_query, summary

# query, document, grade; and query, document, score: a fixed run with graded relevance, unjudged documents, a tie, a
# query that finds nothing relevant and one without any hits.
QRELS = """
q1 a 2
q1 b 1
q1 c 0
q1 d 1
q2 a 1
q2 b 1
q3 e 1
q4 a 3
"""
RUN = """
q1 x 0.9
q1 a 0.8
q1 c 0.7
q1 b 0.6
q2 a 0.5
q2 b 0.5
q3 a 0.4
q3 b 0.3
"""
# By hand. q1: a (2) at rank 2, b (1) at rank 4, ideal 2, 1, 1. q2: both found first.
BY_HAND = {
    "q1": {
        NDCG: (2 / math.log2(3) + 1 / math.log2(5)) / (2 + 1 / math.log2(3) + 1 / 2),
        RECALL: 2 / 3,
        MAP: (1 / 2 + 2 / 4) / 3,
    },
    "q2": {NDCG: 1.0, RECALL: 1.0, MAP: 1.0},
    "q3": {NDCG: 0.0, RECALL: 0.0, MAP: 0.0},
    "q4": {NDCG: 0.0, RECALL: 0.0, MAP: 0.0},
}


def table(text: str, kind: type) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for line in text.split("\n"):
        if line:
            query, document, value = line.split()
            found.setdefault(query, {})[document] = kind(value)
    return found


def by_formula(grades: dict[str, int], scores: dict[str, float]) -> dict[str, float]:
    """The definitions, written out: rank by float32 score, then by id, the larger first."""
    ranked = sorted(scores, key=lambda document: (np.float32(scores[document]), document), reverse=True)
    relevant = {document for document, grade in grades.items() if grade > 0}
    gains = [max(grades.get(document, 0), 0) for document in ranked[:10]]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:10]
    dcg, best = (sum(gain / math.log2(rank + 2) for rank, gain in enumerate(row)) for row in (gains, ideal))
    hits, precisions = 0, 0.0
    for rank, document in enumerate(ranked, start=1):
        if document in relevant:
            hits += 1
            precisions += hits / rank
    count = len(relevant)
    return {
        NDCG: dcg / best if best else 0.0,
        RECALL: len(relevant.intersection(ranked[:100])) / count if count else 0.0,
        MAP: precisions / count if count else 0.0,
    }


documents = st.sampled_from([f"d{number}" for number in range(130)])
judgements = st.dictionaries(documents, st.integers(0, 3), min_size=1, max_size=30)
# Few different scores, so that ties are common.
rankings = st.dictionaries(documents, st.integers(-6, 6).map(lambda score: score / 7), max_size=125)


def test_fixed_run_gives_the_numbers_by_hand():
    found = per_query(table(QRELS, int), table(RUN, float))
    assert list(found.index) == list(BY_HAND)
    for query, metrics in BY_HAND.items():
        assert dict(found.loc[query]) == pytest.approx(metrics, abs=1e-6), query


def test_of_equal_scores_the_larger_id_stands_first():
    found = per_query({"q": {"a": 1}}, {"q": {"a": 0.5, "b": 0.5}})
    assert found.loc["q", MAP] == pytest.approx(1 / 2)
    found = per_query({"q": {"b": 1}}, {"q": {"a": 0.5, "b": 0.5}})
    assert found.loc["q", MAP] == pytest.approx(1)


@chosen(2)
@given(st.lists(st.tuples(judgements, rankings), min_size=1, max_size=4))
def test_equals_the_formulas(pairs):
    qrels = {f"q{number}": grades for number, (grades, _) in enumerate(pairs)}
    run = {f"q{number}": scores for number, (_, scores) in enumerate(pairs)}
    found = per_query(qrels, run)
    for query, grades in qrels.items():
        assert dict(found.loc[query]) == pytest.approx(by_formula(grades, run[query]), abs=1e-6)


def test_depth_of_ten_and_of_a_hundred():
    scores = {f"d{number:03}": 1.0 - number / 1000 for number in range(120)}
    found = per_query({"q": {"d010": 1, "d099": 1, "d100": 1}}, {"q": scores})
    assert found.loc["q", NDCG] == 0.0
    assert found.loc["q", RECALL] == pytest.approx(2 / 3)
    assert found.loc["q", MAP] == pytest.approx((1 / 11 + 2 / 100 + 3 / 101) / 3)


def test_means_and_standard_errors_count_every_query():
    found = summary(per_query(table(QRELS, int), table(RUN, float)))
    values = [metrics[NDCG] for metrics in BY_HAND.values()]
    assert found.loc[NDCG, "value"] == pytest.approx(np.mean(values), abs=1e-6)
    assert found.loc[NDCG, "stderr"] == pytest.approx(np.std(values, ddof=1) / math.sqrt(4), abs=1e-6)
    assert math.isnan(summary(per_query({"q": {"a": 1}}, {})).loc[MAP, "stderr"])
