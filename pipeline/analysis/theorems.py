"""Theorems 1 to 3 of the paper: the deviation that each one estimates, and how well its estimates track it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.analysis import series
from pipeline.analysis.bootstrap import interval
from pipeline.evaluate.intervals import Interval
from pipeline.evaluate.verdict import LOST, UNDECIDED, verdict
from pipeline.tables.variants import VARIANT, rows_of, variants_of

LEAST_CORRELATION = 0.9  # rank correlation that an estimate must reach to track the measured values
RATIOS = (0.5, 2.0)  # range in which the median of estimate over measured must lie as well
SETUP = [*VARIANT, "sublayer"]
TRACKING = [*SETUP, "layer", "theorem", "rank_correlation", "low", "high", "median_ratio", "n"]
_RESAMPLES = 200


@dataclass(frozen=True)
class Theorem:
    """A measured deviation and its estimate.

    Attributes:
        name: number and space, read after the word "theorem".
        quantity: name of the deviation in tables.
        column: of the measured value in the measures; `est_` before it names that of the estimate.
        space: "h", "z" or "p", which decides the colour.
        symbol: the quantity as a formula for an axis.
        estimate: the estimate in words for a caption.
    """

    name: str
    quantity: str
    column: str
    space: str
    symbol: str
    estimate: str

    @property
    def columns(self) -> tuple[str, str]:
        """Columns of the measures that it needs."""
        return self.column, f"est_{self.column}"

    def measured(self, rows: pd.DataFrame) -> pd.Series:
        """Return the measured deviation of each row, never negative."""
        return self._deviation(rows[self.column])

    def estimated(self, rows: pd.DataFrame) -> pd.Series:
        """Return the estimated deviation of each row, never negative."""
        return self._deviation(rows[f"est_{self.column}"])

    def _deviation(self, values: pd.Series) -> pd.Series:
        if self.column.startswith("cos_"):
            return series.deviation(values)
        return values.astype(float).clip(lower=0.0)


IN_H = Theorem("1 (h)", "1 - cos h", "cos_h", "h", r"$1-\cos(h, h+\Delta h)$", "|orthogonal part of dh|^2 / 2|h|^2")
IN_Z = Theorem("1 (z)", "1 - cos z", "cos_z", "z", r"$1-\cos(z, z+\Delta z)$", "|orthogonal part of dz|^2 / 2|z|^2")
OF_P = Theorem("2 (p)", "1 - cos p", "cos_p", "p", r"$1-\cos(p, q)$", "Var_r(dz) / 2T^2 with r = p^2 / |p|^2")
OF_KL = Theorem("3 (KL)", "KL", "kl", "p", r"$\mathrm{KL}(p\,\|\,q)$", "Var_p(dz) / 2T^2")
THEOREMS = (IN_H, IN_Z, OF_P, OF_KL)


def tracking(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute how well estimates track measured deviations over the positions of each layer, under the layer protocol.

    Args:
        rows: measures; only the layer protocol is used, at temperature 1 (at the lowest if 1 is absent).

    Returns:
        One row per variant, sublayer, theorem and layer: pruner, sparsity, options, sublayer, layer, theorem ("1 (h)"),
        rank_correlation (Spearman's over positions, ties sharing their mean rank; NaN where either is constant), low
        and high (its 95 % bootstrap interval over prompts, see `pipeline.analysis.bootstrap`; NaN for one prompt),
        median_ratio (of estimate over measured, where the measured value is above zero; NaN where it never is),
        n (positions where both are finite).
    """
    rows = rows[rows["protocol"] == "layer"]
    if rows.empty:
        return pd.DataFrame({name: [] for name in TRACKING})
    rows, _ = series.at_temperature(rows)
    # Once for all rows, since there are hundreds of groups.
    rows = rows.reset_index(drop=True)
    place = rows.groupby([*SETUP, "layer"], sort=True).ngroup()
    keys = rows[[*SETUP, "layer"]].set_axis(place).loc[lambda frame: ~frame.index.duplicated()].sort_index()
    parts = []
    for theorem in THEOREMS:
        pair = pd.DataFrame({"measured": theorem.measured(rows), "estimate": theorem.estimated(rows)})
        pair = pair.replace([np.inf, -np.inf], np.nan).dropna()
        own = place.loc[pair.index]
        found = _tracked(pair, own).join(_intervals(pair, own, rows.loc[pair.index, "prompt"])).reindex(keys.index)
        parts.append(keys.assign(theorem=theorem.name, **found.assign(n=found["n"].fillna(0).astype(int))))
    table = pd.concat(parts, ignore_index=True)
    order = {theorem.name: number for number, theorem in enumerate(THEOREMS)}
    table = table.assign(order=table["theorem"].map(order)).sort_values([*SETUP, "order", "layer"], kind="stable")
    return table[TRACKING].reset_index(drop=True)


def _tracked(pair: pd.DataFrame, place: pd.Series) -> pd.DataFrame:
    """Compute rank correlation, median ratio and number of the pairs at each place."""
    ranks = pair.groupby(place).rank()
    off = ranks - ranks.groupby(place).transform("mean")
    products = pd.DataFrame({"mm": off["measured"] ** 2, "ee": off["estimate"] ** 2, "me": off.prod(axis=1)})
    sums = products.groupby(place).sum()
    moved = pair[pair["measured"] > 0]
    return pd.DataFrame(
        {
            "rank_correlation": (sums["me"] / np.sqrt(sums["mm"] * sums["ee"])).clip(-1, 1),
            "median_ratio": (moved["estimate"] / moved["measured"]).groupby(place.loc[moved.index]).median(),
            "n": pair.groupby(place).size(),
        }
    )


def _intervals(pair: pd.DataFrame, place: pd.Series, prompts: pd.Series) -> pd.DataFrame:
    """Estimate ``low`` and ``high`` of the rank correlation at each place, over prompts."""
    found = {}
    for at, rows in pair.groupby(place):
        values = rows[["measured", "estimate"]].to_numpy()
        found[at] = interval(values, prompts.loc[rows.index], weighted_rank_correlation, resamples=_RESAMPLES)
    return pd.DataFrame.from_dict(found, orient="index", columns=["low", "high"])


def weighted_rank_correlation(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute Spearman's correlation of (n, 2) values for each row of (resamples, n) counts; NaN where constant."""
    total, off = weights.sum(axis=1, keepdims=True), []
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ends = np.flatnonzero(np.diff(column[order], append=np.inf))
        upto = np.cumsum(weights[:, order], axis=1, dtype=np.float32)[:, ends]
        # Ties share their mean rank, counted from the mean rank of all.
        upto -= total / 2
        upto[:, 1:] = (upto[:, 1:] + upto[:, :-1]) / 2
        upto[:, :1] = (upto[:, :1] - total / 2) / 2
        off.append(upto[:, np.searchsorted(column[order][ends], column)])
    x, y = off
    xx, xy, yy = (np.einsum("rn,rn,rn->r", weights.astype(float), *pair) for pair in ((x, x), (x, y), (y, y)))
    with np.errstate(invalid="ignore"):
        return (xy / np.sqrt(xx * yy)).clip(-1, 1)


def tracks(tracked: pd.DataFrame) -> list[str]:
    """Return for each row of `tracking` whether the correlation reaches `LEAST_CORRELATION`: see `verdict`."""
    columns = ["rank_correlation", "low", "high"]
    return [verdict(Interval(*row), LEAST_CORRELATION) for row in tracked[columns].to_numpy(dtype=float).tolist()]


def breaks(tracked: pd.DataFrame) -> list[str]:
    """Return sentences that name, for each theorem and sublayer, the layers where the estimate does not track.

    A correlation is called below the limit if its whole interval is, and undecided if the interval holds the limit.

    Variants that fail in the same layers share a sentence. There is none where everything tracks, or where tracking
    is unknown (NaN).

    Args:
        tracked: the result of `tracking`.
    """
    sentences = []
    for theorem in THEOREMS:
        for sublayer, name in series.SUBLAYER_NAMES.items():
            part = tracked[(tracked["theorem"] == theorem.name) & (tracked["sublayer"] == sublayer)]
            alike: dict[str, list[str]] = {}
            for variant in variants_of(part):
                alike.setdefault(_failures(rows_of(part, [variant])), []).append(variant.label)
            sentences += [
                f"Theorem {theorem.name}, {name} ({', '.join(labels)}): {failures}."
                for failures, labels in alike.items()
                if failures
            ]
    return sentences


def _failures(rows: pd.DataFrame) -> str:
    """Describe the layers of one variant and sublayer where the correlation or the ratio fails; empty if in none."""
    low, high = RATIOS
    ratio, found = rows["median_ratio"], pd.Series(tracks(rows), index=rows.index)
    tests = {
        f"rank correlation below {LEAST_CORRELATION:g}": found == LOST,
        f"rank correlation undecided about {LEAST_CORRELATION:g}": (found == UNDECIDED) & rows["low"].notna(),
        f"median estimate/measured below {low:g}": ratio < low,
        f"median estimate/measured above {high:g}": ratio > high,
    }
    parts = [
        f"{what} in {_layers(rows.loc[fails, 'layer'], len(rows))}" for what, fails in tests.items() if fails.any()
    ]
    return "; ".join(parts)


def _layers(layers: Iterable[int], count: int) -> str:
    """Return layer numbers in words, neighbours as a range: "layers 0-2, 29 of 30"."""
    numbers = sorted(int(layer) for layer in layers)
    if len(numbers) == count:
        return "every layer"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return f"layer{'s' * (len(numbers) > 1)} {', '.join(words)} of {count}"
