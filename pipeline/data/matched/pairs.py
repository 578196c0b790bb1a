"""Families of cue and answer: word forms, opposites and nationalities."""

from __future__ import annotations

from random import Random

from pipeline.data.matched import words
from pipeline.data.matched.item import Question


def past_tense(rng: Random) -> list[Question]:
    """Ask `Today I walk. Yesterday I` → `walked`, against the past tenses of other verbs."""
    return _questions("Today I {}. Yesterday I", words.PAST_TENSE, rng)


def participles(rng: Random) -> list[Question]:
    """Ask `I walk. I am` → `walking`, against the participles of other verbs."""
    return _questions("I {}. I am", words.PARTICIPLES, rng)


def plurals(rng: Random) -> list[Question]:
    """Ask `I have one cat. You have two` → `cats`, against the plurals of other nouns."""
    return _questions("I have one {}. You have two", words.PLURALS, rng)


def antonyms(rng: Random) -> list[Question]:
    """Ask `Opposites: hot and` → `cold`, against the opposites of other words."""
    return _questions("Opposites: {} and", words.ANTONYMS, rng)


def nationalities(rng: Random) -> list[Question]:
    """Ask `Country: France` → `Nationality: French`, against other nationalities."""
    return _questions("Country: {}\nNationality:", words.NATIONALITIES, rng)


def _questions(template: str, pairs: dict[str, str], rng: Random) -> list[Question]:
    answers = sorted(pairs.values())
    questions = []
    for cue in rng.sample(sorted(pairs), len(pairs)):
        first, second, third = rng.sample([other for other in answers if other != pairs[cue]], 3)
        questions.append(Question(template.format(cue), pairs[cue], (first, second, third)))
    return questions
