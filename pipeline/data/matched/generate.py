"""The program that writes the items of the matched suite: `python -m pipeline.data.matched.generate`.

The items follow from the word lists and the family's name alone, so running this twice writes the same bytes,
and a change to one family leaves the others as they are. No model is involved: items are never chosen by a
model's answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from pipeline.data.matched import pairs, sentences, sequences
from pipeline.data.matched.item import Question, to_rows
from pipeline.data.matched.suite import FAMILIES, items_file

BUILDERS: dict[str, tuple[Callable[[Random], list[Question]], int]] = {
    "copying": (sequences.copying, 4),
    "repetition": (sequences.repetition, 5),
    "counting": (sequences.counting, 6),
    "past_tense": (pairs.past_tense, 5),
    "participles": (pairs.participles, 5),
    "plurals": (pairs.plurals, 5),
    "antonyms": (pairs.antonyms, 8),
    "nationalities": (pairs.nationalities, 5),
    "negation": (sentences.negation, 4),
    "questions": (sentences.questions, 4),
}
"""What makes a family's questions, and how many of them its prompts show as examples."""


def family_text(family: str) -> str:
    """Return the content of `items/<family>.jsonl`, one JSON object per line."""
    build, shots = BUILDERS[family]
    rows = to_rows(family, build(Random(f"matched/{family}")), shots)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Write every family's file."""
    for family in FAMILIES:
        items_file(family).write_text(family_text(family), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
