"""Table of what was pruned and how much, with a row per variant."""

from __future__ import annotations

from pipeline.report.table import Cell, Column, Table, minus, number, plain_table
from pipeline.tables.read import Tables
from pipeline.tables.variants import DENSE, rows_of, variants_of

UNIT_NAMES = {
    "block": "blocks",
    "attention": "attention sublayers",
    "mlp": "MLP sublayers",
    "sublayer": "sublayers of both kinds",
    "weight": "weights",
}


def pruned_table(tables: Tables) -> Table | None:
    """Return pruner, options, sparsity, unit, replicates, fraction removed and parameters per variant, or None."""
    jobs = tables.jobs[tables.jobs["pruner"] != DENSE] if not tables.jobs.empty else tables.jobs
    if jobs.empty:
        return None
    rows = []
    for place, variant in enumerate(variants_of(jobs)):
        own = rows_of(jobs, [variant])
        # Replicates remove the same fraction, up to rounding.
        removed, before, after = (float(own[name].mean()) for name in ("achieved", "dense_parameters", "parameters"))
        unit = str(own["unit"].iloc[0])
        named = ", ".join(name for name in own["replicate"] if name)
        rows.append(
            (
                Cell(variant.pruner, place, variant.options),
                Cell(variant.sparsity, place),
                Cell(UNIT_NAMES.get(unit, unit), note=named),
                number(100 * removed, ".1f", bar=min(1.0, removed)),
                number(before, ",.0f"),
                number(after, ",.0f", note="" if after == before else minus(f"{100 * (after / before - 1):+.1f}%")),
            )
        )
    columns = (
        Column("pruner", words=True),
        Column("sparsity", "as given", words=True),
        Column("unit removed", words=True),
        Column("removed", "% of decoder-block parameters"),
        Column("parameters", "dense"),
        Column("parameters", "pruned"),
    )
    caption = "Removed: percentage of the decoder blocks' parameters that are dropped or set to zero."
    return plain_table(caption, columns, rows)
