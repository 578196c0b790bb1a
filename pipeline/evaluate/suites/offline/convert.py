"""Conversion of the packages' rows to the form of the hub's data sets, which lm-eval's prompts fit unchanged.

Every function takes one row of a package's file and returns one row for lm-eval, or raises Defect.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.evaluate.suites.offline.numeric_answers import read_number
from pipeline.evaluate.suites.offline.options import LETTERS, Defect, read_answer, read_options, read_text

Row = dict[str, Any]


def openbookqa(row: Row) -> Row:
    texts, gold = _choice(row, 4)
    # The file ends every question with one space that the hub's rows do not have.
    stem = read_text(row, "question").removesuffix(" ")
    return {"question_stem": stem, "choices": _lettered(texts), "answerKey": LETTERS[gold]}


def commonsense_qa(row: Row) -> Row:
    texts, gold = _choice(row, 5)
    return {"question": read_text(row, "question"), "choices": _lettered(texts), "answerKey": LETTERS[gold]}


def piqa(row: Row) -> Row:
    (first, second), gold = _choice(row, 2)
    return {"goal": read_text(row, "question"), "sol1": first, "sol2": second, "label": gold}


def social_iqa(row: Row) -> Row:
    texts, gold = _choice(row, 3)
    answers = dict(zip(("answerA", "answerB", "answerC"), texts, strict=True))
    context, question = read_text(row, "passage"), read_text(row, "question")
    return {"context": context, "question": question, **answers, "label": str(gold + 1)}


def mmlu(row: Row) -> Row:
    texts, gold = _choice(row, 4)
    return {"question": read_text(row, "question"), "choices": texts, "answer": gold}


def boolq(row: Row) -> Row:
    label = {"True": 1, "False": 0}.get(str(row.get("answer")))
    if label is None:
        raise Defect("its answer is neither True nor False")
    passage = f"{read_text(row, 'title')} -- {read_text(row, 'passage')}"
    return {"question": read_text(row, "question"), "passage": passage, "label": label}


def boolq_joined(row: Row) -> Row:
    """Convert a row of the file that joins title and passage and has labels instead of answers."""
    if not isinstance(row.get("label"), bool):
        raise Defect("no label")
    question, passage = read_text(row, "question"), read_text(row, "passage")
    return {"question": question, "passage": passage, "label": int(row["label"])}


def nq_open(row: Row) -> Row:
    return {"question": read_text(row, "question"), "answer": _answers(row)}


def narrativeqa(row: Row) -> Row:
    passage, question = read_text(row, "passage"), read_text(row, "question")
    return {"passage": passage, "question": question, "answers": _answers(row)}


def asdiv(row: Row) -> Row:
    answer = read_text(row, "answer")
    if read_number(answer) is None:
        raise Defect("its answer is not one number")
    return {"body": read_text(row, "passage"), "question": read_text(row, "question"), "answer": answer}


def humaneval(row: Row) -> Row:
    fields = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
    converted = {field: read_text(row, field) for field in fields}
    if f"def {row['entry_point']}(" not in row["prompt"]:
        raise Defect("its function is not in the prompt")
    return converted


def _choice(row: Row, count: int) -> tuple[list[str], int]:
    texts = read_options(read_text(row, "options"), count)
    return texts, read_answer(row.get("answer"), texts)


def _lettered(texts: list[str]) -> dict[str, list[str]]:
    return {"text": texts, "label": list(LETTERS[: len(texts)])}


def _answers(row: Row) -> list[str]:
    """Return the accepted answers without wrongly decoded ones, which no model would write."""
    answers = row.get("answer")
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise Defect("no answer")
    answers = [answer.strip() for answer in answers if answer.strip()]
    if not answers:
        raise Defect("no answer")
    if not (readable := [answer for answer in answers if not _garbled(answer)]):
        raise Defect("its answers are garbled")
    return readable


def _garbled(text: str) -> bool:
    """Return whether the text is UTF-8 that was read as a one-byte encoding, such as "Ã©" for "é"."""
    if not re.search(r"[^\x00-\x7f]", text):
        return False
    for encoding in ("cp1252", "latin-1", "iso8859-2"):
        try:
            text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        return True
    return False
