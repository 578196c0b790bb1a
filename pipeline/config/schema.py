"""Types of the configuration: of every key of the root, and of the keys below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pipeline.config.objective import Objective
from pipeline.config.signature import listed_component
from pipeline.config.types import Count, Inches, Positive, Seed, Temperature, Within, converted, misfits

GROUPS = ("model", "pruner", "task", "calibration")
EXPERIMENT = "experiment"
OBJECTIVE = "objective"
PLOT = "plot"
StageName = Literal["prune", "evaluate", "capture", "measure", "plot"]
STAGES = get_args(StageName)
Protocol = Literal["layer", "teacher_forced", "free_running", "options"]
PROTOCOLS = LAYER, TEACHER_FORCED, FREE_RUNNING, OPTIONS = get_args(Protocol)
Readout = Literal["raw", "final_norm"]
RAW, FINAL_NORM = get_args(Readout)
FigureStyle = Literal["screen", "paper"]
SCREEN, PAPER = get_args(FigureStyle)
# What is uploaded to W&B as artifacts: nothing, tables, or also decisions, which hold weights and masks.
Artifacts = Literal["none", "tables", "decisions"]
NO_ARTIFACTS, _, DECISIONS = get_args(Artifacts)
# The built-in text for perplexity.
STORIES = "stories"
HF = "hf"


@dataclass(frozen=True)
class CaptureConfig:
    """``steps`` generated tokens per probe prompt at most; ``dtype`` of the model while it is captured.

    Continuations are the likeliest tokens (``greedy``) or drawn at ``temperature`` (``sample``). ``option_items`` are
    the questions of each multiple-choice task whose first decision is captured beside that of the probes.
    """

    steps: Annotated[int, Within(1, 10_000, "a whole number from 1 to 10000")]
    protocols: list[Protocol]
    decoding: Literal["greedy", "sample"]
    temperature: Temperature
    option_items: Count
    dtype: Literal["float32", "float64", "bfloat16"]


@dataclass(frozen=True)
class MeasureConfig:
    """Softmax temperatures of the probability-space measures, and how logits are read between the blocks.

    ``readout`` is ``raw`` (``W h``) or ``final_norm`` (``W norm(h)``). ``extra`` names further measures, choices of
    ``conf/measures``.
    """

    temperatures: list[Temperature]
    readout: Readout
    extra: list[str]


@dataclass(frozen=True)
class PerplexityConfig:
    """Perplexity of every job on the first ``tokens`` tokens of held-out ``text``; none if ``tokens`` is None.

    ``text`` is ``stories`` or a .txt, .jsonl or .parquet file with the text in ``field``. Windows of ``window`` tokens
    start ``stride`` apart, and each token counts once.
    """

    text: str
    field: str
    tokens: Positive | None
    window: Positive
    stride: Positive


@dataclass(frozen=True)
class ExportConfig:
    """Where the pruned model goes as a checkpoint, if anywhere, and its form: ``hf`` is what transformers loads."""

    path: str | None
    format: Literal["hf"]


@dataclass(frozen=True)
class FiguresConfig:
    """Which figures are drawn, and their form.

    ``select`` names some, by number or in full; ``include`` is a folder with figures of the user's own. In ``style``
    ``screen`` title and caption are in the picture; in ``paper`` they are in files beside it. ``column`` and ``page``
    are widths in inches.
    """

    select: list[str] | None
    include: str | None
    style: FigureStyle
    column: Inches
    page: Inches


@dataclass(frozen=True)
class WandbConfig:
    """Where and under which names runs are logged. ``auto`` is online with a key and a network, else offline.

    For each name that is None, and for tags that are empty, W&B's own environment variable holds. ``artifacts`` are the
    files that are uploaded.
    """

    mode: Literal["auto", "online", "offline", "disabled"]
    project: str | None
    entity: str | None
    name: str | None
    group: str | None
    job_type: str | None
    tags: list[str]
    notes: str | None
    id: str | None
    artifacts: Artifacts


@dataclass(frozen=True)
class Config:
    """The root of the configuration: the type of every key. Defaults stand in ``conf/config.yaml``.

    The groups' types are the constructors that their ``_target_`` names. ``sweep``, ``sparsity_of`` and ``options_of``
    belong to experiments: the values of a sweep by key, and sparsities and options by pruner. ``objective`` is what
    jobs return to a sweeper that chooses its trials.
    """

    model: Any
    pruner: Any
    task: Any
    calibration: Any
    sparsity: Any
    stages: list[StageName]
    seed: Seed
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    allow_code_execution: bool
    outputs: str
    probes: str | None
    figures: FiguresConfig
    objective: Objective | list[Objective] | None
    sweep: dict[str, Any]
    sparsity_of: dict[str, Any]
    options_of: dict[str, Any]
    export: ExportConfig
    capture: CaptureConfig
    measure: MeasureConfig
    perplexity: PerplexityConfig
    wandb: WandbConfig


# Keys of the root that have keys of their own, with their types.
NODES = {
    "export": ExportConfig,
    "figures": FiguresConfig,
    "capture": CaptureConfig,
    "measure": MeasureConfig,
    "perplexity": PerplexityConfig,
    "wandb": WandbConfig,
}


def typed(plain: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a resolved configuration, and sentences about those of a wrong type outside of components.

    A whole number stands for its text where only a text is taken (``outputs=2026`` is a folder), and for its float; a
    single name stands for the list of it (``stages=prune``), in components as well.
    """
    values: dict[str, Any] = {}
    found: list[str] = []
    for key, kind in get_type_hints(Config, include_extras=True).items():
        parts = get_type_hints(NODES[key], include_extras=True) if key in NODES else {}
        for name, own in parts.items():
            given = converted(own, plain[key][name])
            values.setdefault(key, {})[name] = given
            found += misfits(f"{key}.{name}", own, given)
        if not parts:
            values[key] = listed_component(plain[key]) if key in GROUPS else converted(kind, plain[key])
            found += misfits(key, kind, values[key])
    return values, found


def temperatures_problem(listed: Sequence[float]) -> str | None:
    """Return a sentence if softmax temperatures are missing or repeated, else None."""
    if listed and len(set(listed)) == len(listed):
        return None
    return f"measure.temperatures={listed} should be a list of at least one number, without repeats"


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one level with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat
