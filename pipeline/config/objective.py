"""Numbers of a job that a sweeper such as Optuna can look for, by their names in the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

# Mean scores by kind of task, what they retain of the dense model's above chance, the share of parameters removed, and
# two that are better when small: perplexity, and KL of the free-running final states.
Objective = Literal[
    "generation",
    "choice",
    "retrieval",
    "retained_generation",
    "retained_choice",
    "retained_retrieval",
    "removed",
    "perplexity",
    "kl",
]
_SMALLER = ("perplexity", "kl")
LARGER_IS_BETTER: Mapping[str, bool] = {name: name not in _SMALLER for name in get_args(Objective)}
# The stage that makes each of them.
_STAGES = {"removed": "prune", "kl": "measure"}


def objectives(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names in a value of the key ``objective``."""
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def stage_of(name: str) -> str:
    """Return the stage that a job needs for an objective."""
    return _STAGES.get(name, "evaluate")
