"""The typed root of the configuration, and the plain settings that everything below the entry point sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.probes import Probe
from pipeline.config.sparsity import Sparsity

if TYPE_CHECKING:
    from pipeline.data.calibration.base import CalibrationSet
    from pipeline.evaluate.suite import TaskSuite
    from pipeline.model.sources.base import Model
    from pipeline.prune.base import Pruner

GROUPS = ("model", "pruner", "task", "calibration")
EXPERIMENT = "experiment"
PLOT = "plot"
STAGES = ("prune", "evaluate", "capture", "measure", PLOT)
PROTOCOLS = LAYER, TEACHER_FORCED, FREE_RUNNING, OPTIONS = ("layer", "teacher_forced", "free_running", "options")
DECODINGS = ("greedy", "sample")
READOUTS = ("raw", "final_norm")
DTYPES = ("auto", "float32", "bfloat16", "float16")
CAPTURE_DTYPES = ("float32", "float64", "bfloat16")
# The built-in text for perplexity.
STORIES = "stories"
# How a pruned model can be exported: hf is what transformers loads.
EXPORT_FORMATS = (HF,) = ("hf",)
WANDB_MODES = ("auto", "online", "offline", "disabled")


@dataclass
class CaptureConfig:
    """``steps`` generated tokens per probe prompt at most; ``dtype`` of the model while it is captured.

    Continuations are the likeliest tokens (``greedy``) or drawn at ``temperature`` (``sample``). ``option_items`` are
    the questions of each multiple-choice task whose first decision is captured beside that of the probes.
    """

    steps: int = 24
    protocols: list[str] = field(default_factory=lambda: list(PROTOCOLS))
    decoding: str = "greedy"
    temperature: float = 1.0
    option_items: int = 4
    dtype: str = "float32"


@dataclass
class MeasureConfig:
    """Softmax temperatures of the probability-space measures, and how logits are read between the blocks.

    ``readout`` is ``raw`` (``W h``) or ``final_norm`` (``W norm(h)``).
    """

    temperatures: list[float] = field(default_factory=lambda: [1.0])
    readout: str = "raw"


@dataclass
class PerplexityConfig:
    """Perplexity of every job on the first ``tokens`` tokens of held-out ``text``; none if ``tokens`` is None.

    ``text`` is ``stories`` or a .txt, .jsonl or .parquet file with the text in ``field``. Windows of ``window`` tokens
    start ``stride`` apart, and each token counts once.
    """

    text: str = STORIES
    field: str = "text"
    tokens: int | None = 4096
    window: int = 512
    stride: int = 256


@dataclass
class ExportConfig:
    """Where the pruned model goes as a checkpoint, if anywhere, and in which of `EXPORT_FORMATS`."""

    path: str | None = None
    format: str = HF


@dataclass
class WandbConfig:
    """Where runs are logged. ``auto`` is online with a key and a network, else offline."""

    mode: str = "auto"
    project: str = "pruning-representations"
    entity: str | None = None


@dataclass
class Config:
    """Root schema. The groups' schemas are the constructors that their ``_target_`` names.

    ``sweep`` and ``sparsity_of`` belong to experiments: the values of a sweep by key, and sparsities by pruner.
    """

    model: Any = None
    pruner: Any = None
    task: Any = None
    calibration: Any = None
    sparsity: Any = 0.2
    stages: list[str] = field(default_factory=lambda: list(STAGES))
    seed: int = 0
    dtype: str = "auto"
    allow_code_execution: bool = False
    outputs: str = "outputs"
    probes: str | None = None
    figures: list[str] | None = None
    sweep: dict[str, Any] = field(default_factory=dict)
    sparsity_of: dict[str, Any] = field(default_factory=dict)
    export: ExportConfig = field(default_factory=ExportConfig)
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    perplexity: PerplexityConfig = field(default_factory=PerplexityConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass(frozen=True)
class Export:
    """Where and how a job's pruned model is exported."""

    path: Path
    format: str


@dataclass(frozen=True)
class Settings:
    """One job, resolved: components, plain values, and the flat configuration for records and tracking."""

    model: Model
    pruner: Pruner
    task: TaskSuite
    calibration: CalibrationSet
    sparsity: Sparsity
    stages: tuple[str, ...]
    seed: int
    dtype: str
    outputs: Path
    export: Export | None
    probes: tuple[Probe, ...]
    figures: tuple[str, ...] | None
    capture: CaptureConfig
    measure: MeasureConfig
    perplexity: PerplexityConfig
    wandb: WandbConfig
    flat: Mapping[str, Any]


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping to one level with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat
