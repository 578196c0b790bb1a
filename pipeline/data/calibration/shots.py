"""The model's own continuations of the matched tasks' training examples, as prompts in the form of the tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from pipeline.config.component import replicate
from pipeline.config.types import Positive
from pipeline.data.calibration.trajectories import Continuations
from pipeline.data.matched.data import read_items
from pipeline.data.matched.suite import FAMILIES, family_problem


@dataclass(frozen=True)
class Shots(Continuations):
    """Each training example of ``families`` in turn, asked after the other ones of its family; ``sequences`` at most.

    Test items are never among them. Families that are left out stay held out altogether. ``draw`` 1 has the examples
    before each question in the order of their file, every other number in an order of its own. Raises ValueError for
    an unknown family, and if ``families`` is empty.
    """

    sequences: Positive = 48
    families: list[str] = field(default_factory=lambda: list(FAMILIES))
    draw: Positive = replicate(1)

    def documents(self) -> list[str]:
        if problem := family_problem(self.families):
            raise ValueError(problem)
        by_family = [_prompts(family, self.draw) for family in self.families]
        # Families take turns, whatever number of prompts is asked for.
        longest = max(map(len, by_family))
        return [prompts[turn] for turn in range(longest) for prompts in by_family if turn < len(prompts)]

    def prompts(self) -> list[str]:
        return self.documents()[: self.sequences]

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        # The prompts stand for both.
        del identity["families"], identity["draw"]
        return identity


def _prompts(family: str, draw: int) -> list[str]:
    """Return the training examples of a family as prompts, each after the other ones."""
    examples = [row for row in read_items(family) if row["split"] == "fewshot" and row["prompt"] not in _tested()]
    numbers = Random(f"{family} {draw}")
    prompts = []
    for asked in examples:
        before = [f"{row['prompt']} {row['answer']}" for row in examples if row is not asked]
        if draw > 1:
            numbers.shuffle(before)
        prompts.append("\n\n".join([*before, asked["prompt"]]))
    return prompts


@cache
def _tested() -> frozenset[str]:
    """Return the test prompts of all families: some families turn the same sentences into different ones."""
    return frozenset(row["prompt"] for family in FAMILIES for row in read_items(family) if row["split"] == "test")
