"""Scores of short answers in free text against several references, as is customary in reading comprehension."""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import cache
from typing import Any

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """Return the words to compare: lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def exact_match(written: str, reference: str) -> float:
    """Return 1 if both have the same words in the same order, else 0."""
    return float(words(written) == words(reference))


def f1(written: str, reference: str) -> float:
    """Compute the harmonic mean of precision and recall over words, each counted as often as it occurs."""
    left, right = words(written), words(reference)
    if not left or not right:
        return float(left == right)
    shared = (Counter(left) & Counter(right)).total()
    return 2 * shared / (len(left) + len(right))


def rouge_l(written: str, reference: str) -> float:
    """Compute the F-measure over the longest common subsequence of words, without stemming."""
    return float(_rouge().score(reference, written)["rougeL"].fmeasure)


def score(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Compute each metric against the reference that scores highest, in [0, 1]; only the first line written counts."""
    lines = results[0].strip().splitlines()
    written = lines[0] if lines else ""
    return {
        metric.__name__: max(metric(written, reference) for reference in doc["answers"])
        for metric in (f1, exact_match, rouge_l)
    }


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    return RougeScorer(["rougeL"])
