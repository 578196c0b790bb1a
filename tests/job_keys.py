"""Keys of which jobs differ in tests of identity, each with two values."""

from __future__ import annotations

from pathlib import Path

from pipeline.prune.settings import Settings
from pipeline.run.job import run_job
from pipeline.store.records import OK, JobRecord

BASE = ("pruner=wanda", "sparsity=0.5", "capture.option_items=1", "capture.steps=3", "calibration.batch_size=4")
# Each key with two values; whether jobs that differ in it alone repeat each other, and which id tells them apart.
KEYS = {
    "pruner option": (("pruner=rtn", "pruner=rtn"), ("pruner.bits=3", "pruner.bits=8"), "variant_id"),
    "seed": ((), ("seed=0", "seed=1"), "replicate"),
    "draw": (("pruner=random_attn", "sparsity=2"), ("pruner.draw=1", "pruner.draw=2"), "replicate"),
    "calibration set": ((), ("calibration=news", "calibration=wiki"), "variant_id"),
    "calibration length": ((), ("calibration.length=32", "calibration.length=48"), "variant_id"),
    "calibration draw": (
        ("calibration=shots", "calibration.sequences=2", "calibration.length=4"),
        ("calibration.draw=1", "calibration.draw=2"),
        "replicate",
    ),
    "calibration seed": ((), ("calibration.seed=0", "calibration.seed=1"), "replicate"),
    "dtype": ((), ("dtype=float32", "dtype=bfloat16"), "settings_id"),
    "shots": ((), ("task.shots=0", "task.shots=2"), "settings_id"),
    "capture steps": ((), ("capture.steps=2", "capture.steps=4"), "settings_id"),
    "temperature": ((), ("measure.temperatures=[1.0]", "measure.temperatures=[2.0]"), "settings_id"),
    "task limit": ((), ("task.limit=2", "task.limit=3"), "settings_id"),
    "families": ((), ("task.families=[copying]", "task.families=[plurals]"), "settings_id"),
    "held-out text": ((), ("perplexity.tokens=96", "perplexity.tokens=128"), "settings_id"),
    "model": ((), ("model.layers=4", "model.layers=3"), "variant_id"),
}


def of_one_key(name: str, place: int) -> tuple[str, ...]:
    base, values, _ = KEYS[name]
    return (*base, values[place])


def run(settings_of_job: Settings, folder: Path) -> JobRecord:
    record = run_job(settings_of_job, "test", folder)
    assert record.status == OK, record.error
    return record
