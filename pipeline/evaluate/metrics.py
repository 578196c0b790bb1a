"""Metrics of lm-eval by name: the main one of a task, whether higher is better, and which are shares to average."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

# The main metric of a task that compares likelihoods is the first of these that it has.
BY_LIKELIHOOD = ("acc_norm", "acc")
# Lower is better, whatever a definition says.
_LESS = re.compile(
    r"(?:\w*_)?perplexity|bits_per_byte|brier_score|[twc]er|likelihood_diff|pct_\w+|difference_\w+|(?:\w+_)?bias(?:_\w+)?"
    r"|\w*toxicity\w*|average_len"
)
# Higher is better, but not on a scale from 0 to 1: percentages, correlations, log-likelihoods, embedding similarities.
_OTHER_SCALE = re.compile(
    r"(?:smoothed_)?bleu(?:_\d|_max|_avg|_diff)?|chrf(?:\+\+|pp)?|rouge(?:1|2|L|Lsum)_(?:max|avg|diff)|eqbench|percent_\w+"
    r"|mcc|matthews_corrcoef|pearsonr?|spearmanr?|(?:log)?likelihood|bert|bert_?score\w*|bleurt|bartscore|bypass"
)


def more_is_better(metric: str, told: bool | None) -> bool:
    """Return whether higher values of a metric are better: as its definition ``told``, unless its name contradicts."""
    return bool(told) and not _LESS.fullmatch(metric)


def is_share(metric: str, told: bool | None, values: Iterable[float] = ()) -> bool:
    """Return whether a metric ranges from 0 to 1 and higher is better, which makes its mean with others meaningful.

    Its name decides; a metric with an unknown name is a share as long as none of its ``values`` lies outside.
    """
    if not more_is_better(metric, told) or _OTHER_SCALE.fullmatch(metric):
        return False
    return not any(value < 0 or value > 1 for value in values)


def main_metric(names: Sequence[str], told: Mapping[str, bool | None], by_likelihood: bool) -> str:
    """Return the metric of a task that tables and means show.

    That is, for a task ``by_likelihood``, length-normalised accuracy or else accuracy; without these, the first share,
    else the first metric where higher is better, else the first.
    """
    if by_likelihood and (known := next((name for name in BY_LIKELIHOOD if name in names), None)):
        return known
    shares = (name for name in names if is_share(name, told.get(name, True)))
    better = (name for name in names if more_is_better(name, told.get(name, True)))
    return next(shares, None) or next(better, None) or names[0]
