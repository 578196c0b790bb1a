"""Identity of a job: what was done to a model, how the model was evaluated, and which repetition of both.

A *variant* is a model and what was done to it, *conditions* are how it was evaluated and captured. Rows are joined by
the ids of both, never by text. Jobs that differ only in their replicate (the seed, a draw) repeat the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.store.integrity import digest

if TYPE_CHECKING:
    from pipeline.config.schema import Settings

SAMPLE = "sample"
_OF_TASKS = ("task", "embedding", "batch_sizes")
FULL_PRECISION = ("float32", "float64")


@dataclass(frozen=True)
class Identity:
    """The ids of one job, 16 hexadecimal digits each.

    ``base_id`` identifies its conditions without the tasks: jobs that share it and the variant evaluate the same model
    on other tasks. ``replicate`` holds the seed and everything else that numbers repetitions: ``pruner.draw``,
    ``calibration.seed``.
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
    base = _without(conditions, _OF_TASKS)
    parts = {"model_id": {"model": variant["model"]}, "variant_id": variant, "settings_id": conditions, "base_id": base}
    return Identity(**{name: digest(_plain(facts)) for name, facts in parts.items()}, replicate=dict(replicate))


def identity_of(settings: Settings, dtype: str, text: Mapping[str, Any] | None) -> Identity:
    """Identify the job of these settings, whose model and tasks have the resolved ``dtype``.

    ``text`` identifies the held-out text of its perplexity; None if there is none.
    """
    return identify(variant_of(settings), conditions_of(settings, dtype, text), replicate_of(settings))


def variant_of(settings: Settings) -> dict[str, Any]:
    """Return the model and what was done to it: every option as resolved, without seeds and draws."""
    pruner, calibration = settings.pruner, settings.calibration
    facts = {
        "model": settings.model.identity(),
        "pruner": _without(pruner.identity(), pruner.replicate()),
        "sparsity": settings.sparsity.given,
    }
    return facts | ({"calibration": _without(calibration.identity(), {"seed"})} if pruner.calibrated else {})


def conditions_of(settings: Settings, dtype: str, text: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how a model is evaluated and captured: tasks, texts, prompts, protocols and numerical precision."""
    task, capture = settings.task, settings.capture
    # The temperature matters to drawn tokens only.
    idle = set() if capture.decoding == SAMPLE else {"temperature"}
    return {
        "task": task.identity(),
        "embedding": None if task.writes_text else settings.model.embedding,
        "dtype": dtype,
        "batch_sizes": batch_sizes(settings, dtype),
        "capture": _without(vars(capture), idle),
        "probes": [asdict(probe) for probe in settings.probes],
        "measure": vars(settings.measure),
        "perplexity": text,
    }


def batch_sizes(settings: Settings, dtype: str) -> dict[str, int]:
    """Return the batch sizes where they change results: below float32, where kernels round by shape."""
    if dtype in FULL_PRECISION:
        return {}
    return {"task": settings.task.batch_size, "calibration": settings.calibration.batch_size}


def replicate_of(settings: Settings) -> dict[str, Any]:
    """Return the numbers of a job among its repetitions: the seed, draws, and the calibration's seed if it differs."""
    pruner, calibration = settings.pruner, settings.calibration
    found: dict[str, Any] = {"seed": settings.seed}
    found |= {f"pruner.{name}": value for name, value in pruner.replicate().items()}
    if pruner.calibrated and calibration.seed != settings.seed:
        found["calibration.seed"] = calibration.seed
    return found


def _without(facts: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}


def _plain(value: Any) -> Any:
    """Return the facts without empty ones, and components by the name of their class."""
    if not isinstance(value, Mapping):
        return value
    kept = {name: _plain(part) for name, part in value.items()}
    if isinstance(kept.get("type"), str):
        kept["type"] = kept["type"].rpartition(".")[2]
    return {name: part for name, part in kept.items() if part is not None and part != {}}
