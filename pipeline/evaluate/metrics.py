"""Metrics of lm-eval by name: which one speaks for a task, which way is better, and which are shares that average."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

# The main metric of a task that compares likelihoods is the first of these that it has.
BY_LIKELIHOOD = ("acc_norm", "acc")
# Less is better, whatever a definition says.
_LESS = re.compile(
    r"(?:\w*_)?perplexity|bits_per_byte|brier_score|[twc]er|likelihood_diff|pct_\w+|difference_\w+|(?:\w+_)?bias(?:_\w+)?"
    r"|\w*toxicity\w*|average_len"
)
# More is better, but not on a scale from 0 to 1: of hundredths, correlations, log-likelihoods, embeddings' similarity.
_OTHER_SCALE = re.compile(
    r"(?:smoothed_)?bleu(?:_\d|_max|_avg|_diff)?|chrf(?:\+\+|pp)?|rouge(?:1|2|L|Lsum)_(?:max|avg|diff)|eqbench|percent_\w+"
    r"|mcc|matthews_corrcoef|pearsonr?|spearmanr?|(?:log)?likelihood|bert|bert_?score\w*|bleurt|bartscore|bypass"
)


def more_is_better(metric: str, told: bool | None) -> bool:
    """Whether a higher value of a metric is better: as its definition has ``told``, if that can be."""
    return bool(told) and not _LESS.fullmatch(metric)


def is_share(metric: str, told: bool | None, values: Iterable[float] = ()) -> bool:
    """Whether a metric counts from 0 to 1 and more is better, so that its mean with others says something.

    Its name decides; a metric with an unknown name is a share as long as no value of it lies outside.
    """
    if not more_is_better(metric, told) or _OTHER_SCALE.fullmatch(metric):
        return False
    return not any(value < 0 or value > 1 for value in values)


def main_metric(names: Sequence[str], told: Mapping[str, bool | None], by_likelihood: bool) -> str:
    """The metric of a task that tables and means show: of likelihoods, accuracy by length-normalised ones first.

    Else the first share, else the first of which more is better, else the first.
    """
    if by_likelihood and (known := next((name for name in BY_LIKELIHOOD if name in names), None)):
        return known
    shares = (name for name in names if is_share(name, told.get(name, True)))
    better = (name for name in names if more_is_better(name, told.get(name, True)))
    return next(shares, None) or next(better, None) or names[0]
