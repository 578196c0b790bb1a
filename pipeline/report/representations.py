"""Tables of how far representations are from the dense model's, and how well option tokens are preserved."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from pipeline.analysis import series
from pipeline.analysis.first_difference import COLUMN, first_differences
from pipeline.analysis.prompt_means import mean_over_prompts
from pipeline.config.schema import TEACHER_FORCED
from pipeline.measure.columns import further_columns
from pipeline.measure.over_positions import agreement
from pipeline.report.table import NONE, Cell, Column, Table, number, plain_table, significant
from pipeline.tables.read import Tables
from pipeline.tables.variants import DENSE, VARIANT, rows_of, variants_of

PROTOCOLS = {
    "teacher_forced": "teacher-forced: both read the dense model's text",
    "free_running": "free-running: each reads its own text",
}
SETS_OF = {"layer": "sublayer by sublayer", **PROTOCOLS}
MEASURES = {"cos_h": "cos h", "cos_z": "cos z", "cos_p": "cos p", "kl": "KL"}
SETS = {"options": "option tokens", "control": "random tokens", "vocabulary": "vocabulary"}
QUANTILE_LABELS = {"kl_median": "median", "kl_p90": "90%", "kl_p99": "99%", "kl_max": "largest"}
FULL_KL = 5.0  # nats at which a tint is deepest


def deviation_table(tables: Tables) -> Table | None:
    """Return mean cosines and KL per variant and protocol, and the median first different step; None without rows."""
    rows = tables.measures
    rows = rows[rows["protocol"].isin(PROTOCOLS) & (rows["pruner"] != DENSE)] if not rows.empty else rows
    if rows.empty:
        return None
    rows, temperature = series.at_temperature(rows)
    firsts = first_differences(tables.trajectories).set_index(VARIANT)[COLUMN]
    keys = ["protocol", *VARIANT]
    labels = MEASURES | {name: name.replace("_", " ") for name in further_columns(rows)}
    means = mean_over_prompts(rows, list(labels), keys).set_index(keys)
    protocols = [name for name in PROTOCOLS if (rows["protocol"] == name).any()]
    columns = [Column("variant", words=True)]
    columns += [Column(label, group=PROTOCOLS[name]) for name in protocols for label in labels.values()]
    columns.append(Column("texts diverge", "median step"))
    lines = []
    for place, variant in enumerate(variants_of(rows)):
        cells = [_cell(means, (name, *variant), measure) for name in protocols for measure in labels]
        lines.append((Cell(variant.label, place), *cells, _step(firsts.get(variant, math.nan))))
    caption = (
        f"Final states at temperature {temperature:g}, averaged over steps, then over prompts. cos: cosine similarity "
        "of dense and pruned in embeddings h, logits z and probabilities p. KL: KL(dense‖pruned) in nats. Texts "
        "diverge: median over prompts of the first step at which the tokens differ, counted from 0."
    )
    return plain_table(caption, columns, lines)


def _cell(means: pd.DataFrame, key: tuple[str, ...], measure: str) -> Cell:
    if key not in means.index:
        return Cell(NONE)
    value = float(means.loc[key, measure])
    if measure == "kl":
        return significant(value, tone=-value / FULL_KL)
    return number(value, ".4f", tone=value - 1.0) if measure in MEASURES else significant(value)


def _step(step: float) -> Cell:
    if math.isinf(step):
        return Cell("never", math.inf)
    return number(step, ".0f")


def agreement_table(tables: Tables) -> Table | None:
    """Return how closely next tokens agree per variant, both models on the dense one's text; None without rows."""
    rows = tables.measures
    rows = rows[(rows["protocol"] == TEACHER_FORCED) & (rows["pruner"] != DENSE)] if not rows.empty else rows
    if rows.empty:
        return None
    rows, temperature = series.at_temperature(rows)
    columns = [Column("variant", words=True), Column("positions")]
    columns += [Column(label, group="KL over positions") for label in QUANTILE_LABELS.values()]
    columns += [Column("same likeliest token", "%"), Column("acceptance", "%")]
    lines = []
    for place, variant in enumerate(variants_of(rows)):
        own = agreement(rows_of(rows, [variant])).iloc[0]
        kl = [significant(own[name], tone=-own[name] / FULL_KL) for name in QUANTILE_LABELS]
        shares = [number(100 * own[name], ".1f", tone=own[name] - 1) for name in ("top1_agreement", "acceptance")]
        lines.append((Cell(variant.label, place), number(own["n"], ".0f"), *kl, *shares))
    caption = (
        f"Next tokens at temperature {temperature:g}, both models on the dense model's text, all positions alike. KL: "
        "KL(dense‖pruned) in nats. Acceptance: one minus total variation, the share of tokens drawn from the pruned "
        "model that speculative decoding for the dense one would keep."
    )
    return plain_table(caption, columns, lines)


def sets_table(tables: Tables) -> Table | None:
    """Return the measures of sets of states per variant and protocol; None without rows."""
    rows = tables.set_measures
    if rows.empty:
        return None
    names, protocols = (
        list(dict.fromkeys(rows["measure"])),
        [name for name in SETS_OF if (rows["protocol"] == name).any()],
    )
    means = rows.groupby(["protocol", *VARIANT, "measure"])["value"].mean()
    columns = [Column("variant", words=True)]
    columns += [Column(name.replace("_", " "), group=SETS_OF[protocol]) for protocol in protocols for name in names]
    lines = []
    for place, variant in enumerate(variants_of(rows)):
        values = [means.get((protocol, *variant, name), math.nan) for protocol in protocols for name in names]
        lines.append((Cell(variant.label, place), *map(significant, values)))
    caption = (
        f"Measures of all states of a protocol together, {rows['n'].min()} or more of each model: of the final states, "
        "and the mean over sublayers, each pruned alone."
    )
    return plain_table(caption, columns, lines)


def options_table(tables: Tables) -> Table | None:
    """Return KL and changed first choice in option tokens, as many others, and the vocabulary; None without rows."""
    rows = tables.options
    rows = rows[rows["pruner"] != DENSE] if not rows.empty else rows
    if rows.empty:
        return None
    rows, temperature = series.at_temperature(rows)
    sets = [name for name in SETS if (rows["set"] == name).any()]
    means = rows.groupby([*VARIANT, "set"])[["kl", "flip"]].mean()
    columns = [Column("variant", words=True)]
    columns += [Column(SETS[name], group="KL") for name in sets]
    columns += [Column(SETS[name], group="top token changed, %") for name in sets]
    columns += [Column("dense", group="correct answers, %"), Column("pruned", group="correct answers, %")]
    lines = []
    for place, variant in enumerate(variants_of(rows)):
        own = means.reindex([(*variant, name) for name in sets])
        kl = [significant(value, tone=-value / FULL_KL) for value in own["kl"]]
        flips = [number(100 * value, ".1f", tone=-value) for value in own["flip"]]
        answers = rows_of(rows, [variant])
        answers = answers[answers["set"] == "options"]
        right = [number(100 * _mean(answers, f"correct_{who}"), ".1f") for who in ("dense", "pruned")]
        lines.append((Cell(variant.label, place), *kl, *flips, *right))
    caption = (
        f"The first decision step of {rows['prompt'].nunique()} multiple-choice prompts at temperature "
        f"{temperature:g}: probabilities renormalized within the option tokens, within equally many random tokens of "
        "similar rank, and over the whole vocabulary."
    )
    return plain_table(caption, columns, lines)


def _mean(rows: pd.DataFrame, column: str) -> float:
    values = rows[column].astype(float) if column in rows else pd.Series(dtype=float)
    return float(values.mean()) if np.isfinite(values).any() else math.nan
