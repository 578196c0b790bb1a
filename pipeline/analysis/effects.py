"""Effects of pruning in one sentence a variant: what share of generation and of multiple choice it retains."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from pipeline.analysis.score_changes import with_pooled
from pipeline.config.choices import choices_of, read_choice
from pipeline.config.signature import declared, takes_sparsity
from pipeline.config.sparsity import parse
from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.verdict import LOST, UNDECIDED
from pipeline.tables.variants import Variant, ordered

# Names of the kinds of tasks in texts, in their order there.
KIND_NAMES = {"generative": "generation", "multiple_choice": "multiple choice", "retrieval": "retrieval"}
ABOVE_CHANCE = "above chance"
_UNITS = {"block": "blocks", "attention": "attention sublayers", "mlp": "MLPs", "sublayer": "sublayers"}


@dataclass(frozen=True)
class Retained:
    """Share of the dense model's mean score above chance that one kind of task retains, with its 95 % interval.

    All three numbers are fractions, and NaN where the dense model is not clearly above chance. ``verdict`` is that of
    `pipeline.evaluate.comparison`.
    """

    kind: str
    share: float
    low: float
    high: float
    verdict: str

    @property
    def known(self) -> bool:
        """Whether there is a share at all."""
        return not math.isnan(self.share)

    @property
    def lost(self) -> bool:
        """Whether the score is lost."""
        return self.verdict == LOST


@dataclass(frozen=True)
class Effect:
    """What one variant retains, by kind of task in the order of `KIND_NAMES`."""

    variant: Variant
    kinds: tuple[Retained, ...]

    @property
    def known(self) -> bool:
        """Whether there is a share of any kind of task."""
        return any(retained.known for retained in self.kinds)

    @property
    def gap(self) -> float:
        """Difference between the largest and the smallest retained share; NaN with fewer than two."""
        shares = [retained.share for retained in self.kinds if retained.known]
        return max(shares) - min(shares) if len(shares) > 1 else math.nan

    @property
    def lost(self) -> bool:
        """Whether any kind of task is lost."""
        return any(retained.lost for retained in self.kinds)


def effects(comparisons: pd.DataFrame) -> list[Effect]:
    """Compute what every variant retains in the mean over the tasks that all variants share, the largest gap first.

    Args:
        comparisons: as in `pipeline.tables.read.Tables`: without means, one row per variant and task.

    Returns:
        One effect per variant with such a mean. Those without a gap come last, in the order of `ordered`.
    """
    pooled = with_pooled(comparisons)
    if pooled.empty:
        return []
    found: dict[Variant, dict[str, Retained]] = {}
    for row in pooled[pooled["task"] == MEAN].itertuples():
        share, low, high = (float(number) for number in (row.retained, row.retained_low, row.retained_high))
        own = found.setdefault(Variant(row.pruner, row.sparsity, row.options), {})
        own[str(row.kind)] = Retained(str(row.kind), share, low, high, str(row.verdict))
    each = [Effect(variant, _in_order(found[variant])) for variant in ordered(found)]
    return sorted(each, key=lambda effect: math.inf if math.isnan(effect.gap) else -effect.gap)


def _in_order(kinds: dict[str, Retained]) -> tuple[Retained, ...]:
    known = [kind for kind in KIND_NAMES if kind in kinds]
    return tuple(kinds[kind] for kind in (*known, *(kind for kind in kinds if kind not in known)))


def sentence(effect: Effect) -> str:
    """Say an effect: "shortgpt at 20 %: retains above chance 39 % [34, 43] of generation (lost)"."""
    return f"{variant_name(effect.variant)}: {_said(effect, f'{ABOVE_CHANCE} ')}"


def short_sentence(effect: Effect) -> str:
    """Say an effect below a heading that says that shares are measured from chance."""
    return f"{variant_name(effect.variant)}: {_said(effect)}"


def without_shares(found: Iterable[Effect]) -> list[str]:
    """Say of which variants no share is known, and why: a sentence a reason."""
    reasons: dict[str, list[Effect]] = {}
    for effect in found:
        if not effect.known:
            reasons.setdefault(_said(effect), []).append(effect)
    return [
        f"{variant_name(own[0].variant) if len(own) == 1 else f'{len(own)} variants'}: {reason}"
        for reason, own in reasons.items()
    ]


def _said(effect: Effect, measured: str = "") -> str:
    """Return what is retained with interval and verdict, then the kinds of which that is unknown.

    Shares are shown from 0 %: below chance, none is left.
    """
    known = ", ".join(_share(retained) for retained in effect.kinds if retained.known)
    few: list[str] = []
    blind: list[str] = []
    for retained in effect.kinds:
        if not retained.known:
            (few if retained.verdict == UNDECIDED else blind).append(kind_name(retained.kind))
    parts = [f"retains {measured}{known}"] if known else []
    parts += [f"too few items for {' and '.join(few)}"] if few else []
    parts += [f"the dense model is not above chance in {' and '.join(blind)}"] if blind else []
    return "; ".join(parts)


def _share(retained: Retained) -> str:
    limits = f"[{_percent(retained.low)}, {_percent(retained.high)}]"
    return f"{_percent(retained.share)} % {limits} of {kind_name(retained.kind)} ({retained.verdict})"


def _percent(share: float) -> str:
    return f"{max(0.0, 100 * share):.0f}"


def kind_name(kind: str) -> str:
    """Return the name of a kind of task in texts."""
    return KIND_NAMES.get(kind, kind.replace("_", " "))


def variant_name(variant: Variant) -> str:
    """Return a variant in words: "shortgpt at 20 %", "wanda at 2:4", "attn_drop at 8 attention sublayers"."""
    pruner, sparsity, options = variant
    if not takes_sparsity(pruner):
        return variant.label
    return f"{pruner} at {_amount(pruner, sparsity)}{f', {options}' if options else ''}"


def _amount(pruner: str, sparsity: str) -> str:
    found = parse(sparsity)
    if found.kind == "fraction":
        return f"{100 * found.fraction:.4g} %"
    if found.kind == "pattern" or pruner not in choices_of("pruner"):
        return found.given
    units = _UNITS.get(str(declared(read_choice("pruner", pruner), "unit")), "units")
    return f"{found.units} {units.removesuffix('s') if found.units == 1 else units}"
