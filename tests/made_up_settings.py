"""Settings made up for predictions: their features, and what they keep."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit

from pipeline.evaluate.comparison import MEAN

COLUMNS = ("kl", "parting")
FAMILIES = ("attn_drop", "magnitude", "mlp_drop", "shortgpt", "wanda")
TASKS = {("generative", "copying"): 0.5, ("generative", "plurals"): -0.5, ("multiple_choice", "copying"): 1.0}


def settings(families: tuple[str, ...] = FAMILIES, each: int = 4, seed: int = 0) -> pd.DataFrame:
    """Features of made-up settings: a divergence that grows with sparsity, and what goes along with it."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame([(name, str(step)) for name in families for step in range(1, each + 1)])
    frame = frame.set_axis(["pruner", "sparsity"], axis=1)
    kl = 0.05 * 3 ** frame["sparsity"].astype(float) * np.exp(rng.normal(0, 0.6, len(frame)))
    others = {name: kl * np.exp(rng.normal(0, 0.5, len(frame))) for name in ("parting", "kl_sure", "kl_unsure")}
    plain = {name: rng.uniform(0.01, 1, len(frame)) for name in ("perplexity", "cosine", "removed")}
    return frame.assign(options="", family=frame["pruner"], kl=kl, **others, **plain)


def kept_of(measured: pd.DataFrame, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Targets that fall along a logistic curve of log KL, each task at a place of its own."""
    rng = np.random.default_rng(seed)
    parts = []
    for (kind, task), place in TASKS.items():
        share = expit(place - 1.5 * np.log(measured["kl"])) + rng.normal(0, noise, len(measured))
        about = measured[["pruner", "sparsity", "options", "family"]].assign(task=task, kind=kind)
        parts.append(about.assign(kept=share, signal=0.8, weight=16.0))
    return pd.concat(parts, ignore_index=True)


def means(rows: pd.DataFrame, kind: str = "generative") -> pd.DataFrame:
    return rows[(rows["task"] == MEAN) & (rows["kind"] == kind)]
