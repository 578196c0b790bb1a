"""Content of the matched suite: families, their two lm-eval tasks, and the folder of the task files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

INCLUDE_PATH = Path(__file__).resolve().parent / "configs"
"""Folder for `lm_eval.tasks.TaskManager(include_path=INCLUDE_PATH, include_defaults=False)`."""

ITEMS_PATH = Path(__file__).resolve().parent / "items"
"""Folder of the shipped items, one JSON Lines file per family."""

FAMILIES = (
    "copying",
    "repetition",
    "counting",
    "past_tense",
    "participles",
    "plurals",
    "antonyms",
    "nationalities",
    "negation",
    "questions",
)
"""Every family; each has `items/<family>.jsonl` and two files in `configs/`."""

RELATIVES = (("past_tense", "participles", "antonyms"), ("negation", "questions"), ("copying", "repetition"))
"""Families that share verbs, a template with prompts, or a word list."""

HALVES = (
    ("copying", "repetition", "plurals", "negation", "questions"),
    ("counting", "past_tense", "participles", "antonyms", "nationalities"),
)
"""Two halves that keep relatives together: what one half has chosen is judged on the other."""

METRICS = {"generative": "exact_match", "multiple_choice": "acc"}
"""Each kind of task and the metric that scores it; both lie in [0, 1] and higher is better."""


@dataclass(frozen=True)
class MatchedTask:
    """One lm-eval task of the suite: one family in one of its two forms."""

    name: str
    family: str
    kind: str
    metric: str


def matched_tasks(families: Iterable[str] = FAMILIES) -> tuple[MatchedTask, ...]:
    """Return the tasks of `families`, in the given order, each family's generative form first.

    Raises ValueError for an unknown family, with the nearest known name and the whole list.
    """
    return tuple(
        MatchedTask(f"matched_{family}_{kind}", family, kind, metric)
        for family in map(_known, families)
        for kind, metric in METRICS.items()
    )


def family_problem(families: Sequence[str]) -> str | None:
    """Return a sentence if there is no family to take calibration text from, or an unknown one; else None."""
    if not families:
        return f"calibration.families is empty; choose from {', '.join(FAMILIES)}"
    for family in families:
        if family not in FAMILIES:
            near = get_close_matches(str(family), FAMILIES, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            return f"calibration.families: {family} does not exist; {hint}choose from {', '.join(FAMILIES)}"
    return None


def relatives_of(families: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the families that have relatives among ``others``, in the order of the suite."""
    asked = set(others)
    groups = [group for group in RELATIVES if asked & set(group)]
    return [family for family in FAMILIES if family in families and any(family in group for group in groups)]


def items_file(family: str) -> Path:
    """Return the path of the family's shipped items. Raises ValueError for an unknown family."""
    return ITEMS_PATH / f"{_known(family)}.jsonl"


def _known(family: str) -> str:
    if family in FAMILIES:
        return family
    near = get_close_matches(family, FAMILIES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown matched family {family!r}.{hint} Choose from: {', '.join(FAMILIES)}.")
