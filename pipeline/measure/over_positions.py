"""How closely the next-token distributions of two models agree, over all positions of a protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.config.schema import FREE_RUNNING, TEACHER_FORCED

QUANTILES = {"kl_median": 0.5, "kl_p90": 0.9, "kl_p99": 0.99, "kl_max": 1.0}
AGREEMENT_COLUMNS = ["protocol", "temperature", "n", "kl_mean", *QUANTILES, "top1_agreement", "tv", "acceptance"]


def agreement(measures: pd.DataFrame) -> pd.DataFrame:
    """Summarise the measures of final states over positions, a row for each protocol and temperature.

    Args:
        measures: protocol, temperature, kl (nats), tv and flip, one row a position and temperature.

    Returns:
        `AGREEMENT_COLUMNS`: ``n`` positions; mean, median, 90th and 99th percentile (interpolated linearly) and maximum
        of the KL divergence; ``top1_agreement``, the share of positions at which both models have the same likeliest
        token; the mean total variation ``tv``; and ``acceptance = 1 - tv``, the share of tokens drawn from the pruned
        model that speculative decoding with it as the draft would accept (Leviathan et al. 2023, corollary 3.6).
    """
    final = measures[measures["protocol"].isin((TEACHER_FORCED, FREE_RUNNING))]
    rows = [
        (protocol, temperature, len(own), *_divergence(own["kl"]), 1 - own["flip"].mean(), own["tv"].mean())
        for (protocol, temperature), own in final.groupby(["protocol", "temperature"], sort=False)
    ]
    frame = pd.DataFrame(rows, columns=AGREEMENT_COLUMNS[:-1])
    return frame.assign(acceptance=1 - frame["tv"])


def _divergence(kl: pd.Series) -> tuple[float, ...]:
    return float(kl.mean()), *np.quantile(kl.to_numpy(dtype=float), list(QUANTILES.values())).tolist()
