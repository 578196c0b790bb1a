"""nDCG@10, Recall@100 and MAP of rankings, computed by trec_eval."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import pytrec_eval

NDCG, RECALL, MAP = "ndcg@10", "recall@100", "map"
MAIN = NDCG
# Names of the metrics in a request to trec_eval, and in its answer.
_ASKED = {NDCG: "ndcg_cut.10", RECALL: "recall.100", MAP: "map"}
_ANSWERED = {NDCG: "ndcg_cut_10", RECALL: "recall_100", MAP: "map"}


def per_query(qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Compute the metrics of every judged query: one row per query id in the order of ``qrels``, one column per metric.

    ``run`` gives scores by query and document. A query without hits scores 0, as does one without relevant documents.
    As in trec_eval, gains are the grades themselves, grades below 1 are not relevant, scores are compared in float32,
    and among equal scores the document with the larger id comes first.
    """
    evaluator = pytrec_eval.RelevanceEvaluator(
        {query: dict(grades) for query, grades in qrels.items()}, set(_ASKED.values())
    )
    found = evaluator.evaluate({query: dict(run.get(query, {})) for query in qrels})
    rows = [[found[query][_ANSWERED[metric]] for metric in _ASKED] for query in qrels]
    return pd.DataFrame(rows, index=list(qrels), columns=list(_ASKED), dtype=float)


def summary(values: pd.DataFrame) -> pd.DataFrame:
    """Compute mean and standard error of each metric over queries: ``value`` and ``stderr`` (NaN for one query)."""
    return pd.DataFrame({"value": values.mean(), "stderr": values.sem()})
