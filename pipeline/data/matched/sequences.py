"""Families about sequences: copying words, repeating them, and counting on."""

from __future__ import annotations

from random import Random

from pipeline.data.matched.item import MOST_TEST_ITEMS, Question
from pipeline.data.matched.words import COMMON_WORDS

SPARE = 8
"""Questions made beyond the test items, enough for any family's few-shot examples."""


def copying(rng: Random) -> list[Question]:
    """Ask for five words again, against: two neighbours swapped, one word replaced, another order."""
    return [_copy(rng.sample(COMMON_WORDS, 6), rng) for _ in range(MOST_TEST_ITEMS + SPARE)]


def repetition(rng: Random) -> list[Question]:
    """Ask for one word three times, against one of the three replaced by another word."""
    asked = rng.sample(COMMON_WORDS, MOST_TEST_ITEMS + SPARE)
    return [_repeat(word, rng.choice([other for other in COMMON_WORDS if other != word])) for word in asked]


def counting(rng: Random) -> list[Question]:
    """Ask `34 35` → `36 37`, against: one too low, one too high, a step of two. All numbers have two digits."""
    return [_count(start) for start in rng.sample(range(12, 96), MOST_TEST_ITEMS + SPARE)]


def _copy(drawn: list[str], rng: Random) -> Question:
    *words, stranger = drawn
    where = rng.randrange(len(words) - 1)
    swapped = [*words[:where], words[where + 1], words[where], *words[where + 2 :]]
    where = rng.randrange(len(words))
    replaced = [*words[:where], stranger, *words[where + 1 :]]
    shuffled = list(words)
    while shuffled in (words, swapped):
        rng.shuffle(shuffled)
    first, second, third = (", ".join(option) for option in (swapped, replaced, shuffled))
    listed = ", ".join(words)
    return Question(f"Say: {listed}\nI say:", listed, (first, second, third))


def _repeat(word: str, other: str) -> Question:
    wrong = (f"{other}, {word}, {word}", f"{word}, {other}, {word}", f"{word}, {word}, {other}")
    return Question(f"{word}, three times:", f"{word}, {word}, {word}", wrong)


def _count(start: int) -> Question:
    def two(first: int, second: int) -> str:
        return f"{first} {second}"

    wrong = (two(start - 1, start), two(start + 1, start + 2), two(start, start + 2))
    return Question(two(start - 2, start - 1), two(start, start + 1), wrong)
