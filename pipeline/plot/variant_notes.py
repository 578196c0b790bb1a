"""Caption sentences that name variants: those of a pruner together, as a page may have left out thirty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from pipeline.common.runs import in_runs
from pipeline.model.structure import ATTENTION
from pipeline.tables.replicates import REPLICATE
from pipeline.tables.variants import VARIANT, Variant, variants_of


def listed(variants: Iterable[Variant]) -> str:
    """Return the names of variants in words, a pruner with its sparsities as one; empty without any."""
    sparsities: dict[tuple[str, str], list[str]] = {}
    for variant in variants:
        sparsities.setdefault((variant.pruner, variant.options), []).append(variant.sparsity)
    names = [Variant(pruner, ", ".join(own), options).label for (pruner, options), own in sparsities.items()]
    return ("; " if any(", " in name for name in names) else ", ").join(names)


def not_shown_note(variants: Iterable[Variant]) -> tuple[str, ...]:
    """Return the caption sentence that names the variants a figure does not show by design; empty without any."""
    names = listed(variants)
    return (f"Not shown: {names}.",) if names else ()


def left_out_note(left_out: Iterable[Variant]) -> tuple[str, ...]:
    """Return the caption sentence that names the variants a figure had no room for; empty without any."""
    names = listed(left_out)
    return (f"Left out for space: {names}.",) if names else ()


def replicates_note(jobs: pd.DataFrame, data: pd.DataFrame) -> tuple[str, ...]:
    """Return the caption sentence on the variants of a figure that have several seeds or draws; empty without any.

    Args:
        jobs: pruner, sparsity, options, replicate; one row per job.
        data: what the figure shows.
    """
    if jobs.empty or not set(VARIANT) <= set(data.columns):
        return ()
    # Sparsities with the same curves are one variant of the figure.
    shown = {own._replace(sparsity=word) for own in variants_of(data) for word in own.sparsity.split(", ")}
    counts = {
        variant: int(count)
        for variant, count in jobs.groupby(VARIANT)[REPLICATE].nunique().items()
        if Variant(*variant) in shown
    }
    several = sorted({count for count in counts.values() if count > 1})
    if not several:
        return ()
    if set(counts.values()) == set(several) and len(several) == 1:
        said = f"Each variant under {several[0]} seeds or draws"
    else:
        own = pd.DataFrame([(*variant, count) for variant, count in counts.items()], columns=[*VARIANT, "count"])
        parts = [f"{listed(variants_of(own[own['count'] == count]))}: {count} seeds or draws" for count in several]
        said = f"Repeated: {'; '.join(parts)}"
    return (f"{said}; scores are means over them, positions are pooled, single texts are of the first.",)


def mixers_note(layers: Sequence[int], data: pd.DataFrame) -> list[str]:
    """Say in which layers what counts as attention is another mixer of tokens, if a figure shows such sublayers."""
    if not layers or "sublayer" not in data or not (data["sublayer"] == ATTENTION).any():
        return []
    return [f"The attention of layer{'s' if len(layers) > 1 else ''} {in_runs(layers)} is another mixer of tokens."]
