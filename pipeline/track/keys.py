"""Keys under which runs have their numbers, in the words of the tables and of the page."""

from __future__ import annotations

from pipeline.track.values import key_of

# Share of the decoder-block parameters that is removed: the axis on which sparsities of all pruners are comparable,
# whether they are fractions, patterns or numbers of units.
REMOVED = "removed"
# Kinds of task with mean scores, and their names for readers.
KINDS = {
    "generative": "generation",
    "multiple_choice": "multiple choice",
    "retrieval": "retrieval",
    "perplexity": "perplexity",
}
# Type of the run that a sweep closes with.
FIGURES = "figures"
# KL(dense‖pruned) of the final states, each model on its own text.
KL = "free_running/kl"


def kind_key(kind: str) -> str:
    """Return the name of a kind of task in keys: ``generation``, ``multiple_choice``."""
    return key_of(KINDS.get(kind, kind))


def score_key(kind: str, task: str) -> str:
    """Return the key of a task's score."""
    return f"{kind_key(kind)}/{key_of(task)}"


def mean_key(kind: str) -> str:
    """Return the key of the mean over the tasks of a kind."""
    return f"{kind_key(kind)}/mean"


def retained_key(kind: str) -> str:
    """Return the key of the share of the dense score above chance that a kind of task retains."""
    return f"retained/{kind_key(kind)}"


def fidelity_key(kind: str, name: str) -> str:
    """Return the key of how the answers to a kind of task differ from the dense model's."""
    return f"fidelity/{kind_key(kind)}/{name}"
