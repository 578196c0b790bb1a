"""Settings that the numbers were computed with, and how dense and pruned models were compared."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.analysis.effects import kind_name
from pipeline.evaluate.verdict import MARGIN
from pipeline.report.changes import kinds_of
from pipeline.tables.read import Tables


@dataclass(frozen=True)
class Settings:
    """Settings in the words of the tables, how models were compared, other models, and other settings."""

    line: str
    facts: tuple[str, ...]
    comparisons: tuple[str, ...]
    peers: tuple[str, ...]
    others: tuple[str, ...]


def settings_of(tables: Tables) -> Settings:
    """Return everything that numbers must share to be equal, and the other models and settings in the tables."""
    peers = tuple(sorted(name for name in tables.peers if name))
    same = {peer.choice.line for peer in tables.peers.values()}
    others = tuple(line for line in tables.choice.others if line not in same)
    return Settings(tables.choice.line, tuple(_facts(tables)), tuple(_comparisons(tables)), peers, others)


def _facts(tables: Tables) -> list[str]:
    facts = list(tables.replicate_notes())
    if not tables.measures.empty:
        temperatures = ", ".join(f"{value:g}" for value in sorted(tables.measures["temperature"].unique()))
        protocols = ", ".join(sorted(name.replace("_", "-") for name in tables.measures["protocol"].unique()))
        facts += [f"Temperatures measured: {temperatures}.", f"Protocols measured: {protocols}."]
    if not tables.scores.empty:
        counts = tables.scores.groupby("kind")["task"].nunique()
        parts = ", ".join(f"{kind_name(kind)} {counts[kind]}" for kind in kinds_of(tables.scores))
        facts.append(f"Tasks: {parts}.")
    return facts


def _comparisons(tables: Tables) -> list[str]:
    said = []
    if not tables.scores.empty:
        said += [
            "Dense and pruned models answer the same items under the same settings. A mean covers the tasks evaluated "
            "for every variant, each with equal weight.",
            "Differences are paired by item. Items scored right or wrong: McNemar's test with continuity correction "
            "and the matching Tango interval; other items: paired t-test; means over tasks: variances recovered from "
            "the tasks' intervals. Intervals cover about 95%; those of means over small tasks cover more.",
            f"A score is kept if the whole interval of its difference is above −{100 * MARGIN:g} points, lost if the "
            f"whole interval is below, and cannot be told if −{100 * MARGIN:g} lies inside. No signal: the dense model "
            f"is not clearly above chance, or by no more than {100 * MARGIN:g} points.",
        ]
    if not tables.measures.empty:
        said += [
            "Layer protocol: one sublayer at a time is pruned, on the dense model's own inputs and context. "
            "Teacher-forced: the whole pruned model reads the dense model's text. Free-running: each model reads the "
            "text that it generated itself, and states at the same step are compared.",
            "KL is always KL(dense‖pruned), in nats. cos is the cosine similarity of dense and pruned. Unless stated "
            "otherwise, the temperature is 1 (or the lowest measured, if 1 was not measured).",
        ]
    return said
