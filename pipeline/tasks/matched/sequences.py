"""Families about sequences: copying and repeating words, counting on, and spelling numbers out."""

from __future__ import annotations

from random import Random

from pipeline.tasks.matched.item import MOST_TEST_ITEMS, Question
from pipeline.tasks.matched.words import COMMON_WORDS

SPARE = 8
"""Questions made beyond the test items, enough for any family's few-shot examples."""

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def copying(rng: Random) -> list[Question]:
    """Five words to say again, against: two neighbours swapped, one word replaced, the words in another order."""
    return [_copy(rng.sample(COMMON_WORDS, 6), rng) for _ in range(MOST_TEST_ITEMS + SPARE)]


def repetition(rng: Random) -> list[Question]:
    """One word three times, against one of the three replaced by another word. Every question has its own word."""
    asked = rng.sample(COMMON_WORDS, MOST_TEST_ITEMS + SPARE)
    return [_repeat(word, rng.choice([other for other in COMMON_WORDS if other != word])) for word in asked]


def counting(rng: Random) -> list[Question]:
    """`34 35 36` → `37 38 39`, against: one too low, one too high, steps of two. All numbers have two digits."""
    return [_count(start) for start in rng.sample(range(13, 95), MOST_TEST_ITEMS + SPARE)]


def number_words(rng: Random) -> list[Question]:
    """`Number: 47` → `Words: forty-seven`, against three numbers that share a digit with it.

    A round number and one with a unit of one are among the few-shot examples, so that the prompt shows every shape.
    """
    shown = [34, 50, 71, 28, 96, 83]
    asked = rng.sample([number for number in range(21, 100) if number not in shown], MOST_TEST_ITEMS)
    return [_spell_question(number, rng) for number in shown + asked]


def spell(number: int) -> str:
    """A number from 20 to 99 in English words: 47 is `forty-seven`."""
    tens, unit = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_UNITS[unit]}" if unit else "")


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
    def run(first: int, step: int = 1) -> str:
        return " ".join(str(first + step * index) for index in range(3))

    return Question(run(start - 3), run(start), (run(start - 1), run(start + 1), run(start, step=2)))


def _spell_question(number: int, rng: Random) -> Question:
    tens, unit = number // 10 * 10, number % 10
    near = {tens + other for other in range(10)} | {other + unit for other in range(20, 100, 10)}
    first, second, third = (spell(other) for other in rng.sample(sorted(near - {number}), 3))
    return Question(f"Number: {number}\nWords:", spell(number), (first, second, third))
