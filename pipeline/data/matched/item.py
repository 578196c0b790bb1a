"""A question of the suite, and the conversion of a family's questions into rows of its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

OPTIONS = 4
MOST_TEST_ITEMS = 64


@dataclass(frozen=True)
class Question:
    """A prompt with no space at its end, the answer that follows it, and three wrong answers of its type."""

    prompt: str
    answer: str
    distractors: tuple[str, str, str]


def to_rows(family: str, questions: Sequence[Question], shots: int) -> list[dict]:
    """Make the rows of one family: the first `shots` questions are few-shot examples, up to 64 more are test items.

    Test items come in whole groups of four, and each group has its answer once at every position. The positions
    are therefore balanced in any prefix of whole groups, and answering by position scores 1/4.
    """
    tests = min(MOST_TEST_ITEMS, len(questions) - shots) // OPTIONS * OPTIONS
    rng = Random(f"matched/{family}/positions")
    rows = []
    for split, chosen in (("fewshot", questions[:shots]), ("test", questions[shots : shots + tests])):
        positions = _balanced_positions(len(chosen), rng)
        for index, (question, position) in enumerate(zip(chosen, positions, strict=True)):
            rows.append(_row(f"{family}-{split}-{index:02d}", split, question, position, rng))
    return rows


def _balanced_positions(count: int, rng: Random) -> list[int]:
    positions: list[int] = []
    while len(positions) < count:
        positions += rng.sample(range(OPTIONS), OPTIONS)
    return positions[:count]


def _row(name: str, split: str, question: Question, position: int, rng: Random) -> dict:
    choices = rng.sample(question.distractors, len(question.distractors))
    choices.insert(position, question.answer)
    return {
        "id": name,
        "split": split,
        "prompt": question.prompt,
        "answer": question.answer,
        "choices": choices,
        "label": position,
    }
