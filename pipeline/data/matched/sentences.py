"""Families that turn one short sentence into another."""

from __future__ import annotations

from itertools import product
from random import Random

from pipeline.data.matched.item import MOST_TEST_ITEMS, Question
from pipeline.data.matched.words import ADJECTIVES, NOUNS

SPARE = 8
"""Questions made beyond the test items, enough for any family's few-shot examples."""


def negation(rng: Random) -> list[Question]:
    """Ask `The cat is black ->` → `The cat is not black`, against another noun, another adjective, and both."""
    return _questions("The {noun} is {adjective} ->", "The {noun} is not {adjective}", rng)


def questions(rng: Random) -> list[Question]:
    """Ask `The cat is black ->` → `Is the cat black?`, against another noun, another adjective, and both."""
    return _questions("The {noun} is {adjective} ->", "Is the {noun} {adjective}?", rng)


def _questions(prompt: str, answer: str, rng: Random) -> list[Question]:
    made = []
    for noun, adjective in rng.sample(list(product(NOUNS, ADJECTIVES)), MOST_TEST_ITEMS + SPARE):
        other_noun = rng.choice([other for other in NOUNS if other != noun])
        other_adjective = rng.choice([other for other in ADJECTIVES if other != adjective])
        wrong = (
            answer.format(noun=noun, adjective=other_adjective),
            answer.format(noun=other_noun, adjective=adjective),
            answer.format(noun=other_noun, adjective=other_adjective),
        )
        asked = prompt.format(noun=noun, adjective=adjective)
        made.append(Question(asked, answer.format(noun=noun, adjective=adjective), wrong))
    return made
