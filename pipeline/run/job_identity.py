"""Facts of a job that its ids are made of: the variant, the conditions, and which repetition of both it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.prune.settings import Settings
from pipeline.store.identity import SAMPLE, Identity, identify, without


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
        "pruner": without(pruner.identity(), pruner.replicate()),
        "sparsity": settings.sparsity.given,
    }
    return facts | ({"calibration": without(calibration.first().identity(), {"seed"})} if pruner.calibrated else {})


def conditions_of(settings: Settings, dtype: str, text: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how a model is evaluated and captured: tasks, texts, prompts, protocols and numerical precision."""
    task, capture = settings.task, settings.capture
    # The temperature matters to drawn tokens only.
    idle = set() if capture.decoding == SAMPLE else {"temperature"}
    return {
        "task": task.identity(),
        "embedding": None if task.writes_text else settings.model.embedding,
        "dtype": dtype,
        "batch_sizes": settings.batch_sizes(dtype),
        "capture": without(vars(capture), idle),
        "probes": [asdict(probe) for probe in settings.probes],
        "measure": without(vars(settings.measure), {"extra"}),
        "extra": [measure.identity() for measure in settings.extra] or None,
        "perplexity": text,
    }


def replicate_of(settings: Settings) -> dict[str, Any]:
    """Return the numbers of a job among its repetitions: the seed, draws, and those of the calibration that differ."""
    pruner, calibration = settings.pruner, settings.calibration
    found: dict[str, Any] = {"seed": settings.seed}
    found |= {f"pruner.{name}": value for name, value in pruner.replicate().items()}
    if pruner.calibrated:
        first = calibration.first().replicate()
        found |= {f"calibration.{name}": n for name, n in calibration.replicate().items() if n != first[name]}
        found |= {"calibration.seed": calibration.seed} if calibration.seed != settings.seed else {}
    return found
