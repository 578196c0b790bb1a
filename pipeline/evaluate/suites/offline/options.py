"""Lettered options and answers of multiple-choice rows, and the defects for which a row cannot be used."""

from __future__ import annotations

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Defect(ValueError):
    """Reason why a row cannot be used, in a few words that read well after "left out:"."""


def read_text(row: dict, field: str) -> str:
    """Return the text in ``field``, unchanged. Raises Defect if it is missing, blank or not a text."""
    text = row.get(field)
    if not isinstance(text, str) or not text.strip():
        raise Defect(f"no {field}")
    return text


def read_options(text: str, count: int) -> list[str]:
    """Read the texts of ``count`` options written as ``"A. one\\nB. two"``, perhaps after an empty line.

    An option may have several lines. Raises Defect unless the text can be read in exactly one way: a line inside an
    option that begins like another option allows two.
    """
    lines = text.removeprefix("\n").split("\n")
    # One letter more than expected: a fifth of four options must not be taken for the end of the fourth.
    marker = re.compile(f"([{LETTERS[: count + 1]}])\\. ")
    starts = [number for number, line in enumerate(lines) if marker.match(line)]
    found = "".join(lines[start][0] for start in starts)
    if found != LETTERS[:count]:
        raise Defect(f"its options are not A to {LETTERS[count - 1]}")
    if starts[0] != 0:
        raise Defect("text before its first option")
    ends = [*starts[1:], len(lines)]
    texts = ["\n".join(lines[start:end])[3:] for start, end in zip(starts, ends, strict=True)]
    if not all(option.strip() for option in texts):
        raise Defect("a blank option")
    return texts


def read_answer(answer: object, texts: Sequence[str]) -> int:
    """Return the index of an answer that is written like its option: ``"B. two"``.

    Raises Defect if there is none, if letter and text disagree, or if another option has the same text.
    Case counts, since it distinguishes the genotypes BB and Bb.
    """
    if not isinstance(answer, str) or not answer.strip():
        raise Defect("no answer")
    written = [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False)]
    if answer not in written:
        if answer[3:] in texts:
            raise Defect("its answer's letter and text disagree")
        raise Defect("its answer is not among the options")
    index = written.index(answer)
    if [text.strip() for text in texts].count(texts[index].strip()) > 1:
        raise Defect("its answer appears twice among the options")
    return index
