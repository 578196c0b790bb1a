"""Identity of a job: what was done to a model, how the model was evaluated, and which repetition of both.

A *variant* is a model and what was done to it, *conditions* are how it was evaluated and captured. Rows are joined by
the ids of both, never by text. Jobs that differ only in their replicate (the seed, a draw) repeat the same thing.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.store.integrity import digest

SAMPLE = "sample"
_OF_TASKS = ("task", "embedding", "batch_sizes")
FULL_PRECISION = ("float32", "float64")


@dataclass(frozen=True)
class Identity:
    """The ids of one job, 16 hexadecimal digits each.

    ``base_id`` identifies its conditions without the tasks: jobs that share it and the variant evaluate the same model
    on other tasks. ``replicate`` holds the seed and everything else that numbers repetitions: ``pruner.draw``,
    ``calibration.draw``, ``calibration.seed``.
    """

    model_id: str
    variant_id: str
    settings_id: str
    base_id: str
    replicate: Mapping[str, Any]

    @property
    def job(self) -> str:
        return digest({"variant": self.variant_id, "settings": self.settings_id, "replicate": dict(self.replicate)})


def identify(variant: Mapping[str, Any], conditions: Mapping[str, Any], replicate: Mapping[str, Any]) -> Identity:
    """Hash the facts of a variant and of its conditions.

    Empty facts are left out: a new kind of fact changes no id of the jobs without it. Components count by the name of
    their class: moving one to another file changes no id.
    """
    base = without(conditions, _OF_TASKS)
    parts = {"model_id": {"model": variant["model"]}, "variant_id": variant, "settings_id": conditions, "base_id": base}
    return Identity(**{name: digest(_plain(facts)) for name, facts in parts.items()}, replicate=dict(replicate))


def without(facts: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """Return the facts but those of these names."""
    return {name: value for name, value in facts.items() if name not in names}


def _plain(value: Any) -> Any:
    """Return the facts without empty ones, and components by the name of their class."""
    if not isinstance(value, Mapping):
        return value
    kept = {name: _plain(part) for name, part in value.items()}
    if isinstance(kept.get("type"), str):
        kept["type"] = kept["type"].rpartition(".")[2]
    return {name: part for name, part in kept.items() if part is not None and part != {}}
