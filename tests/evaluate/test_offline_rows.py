"""Rows of the packages' benchmarks: what is read from a row, what makes one unusable, and how answers are scored."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.evaluate.suites.offline import convert
from pipeline.evaluate.suites.offline.numeric_answers import first_number, read_number
from pipeline.evaluate.suites.offline.numeric_answers import score as score_number
from pipeline.evaluate.suites.offline.options import LETTERS, Defect, read_answer, read_options
from pipeline.evaluate.suites.offline.rows import checked, examples, lines_of, rows, usable_rows
from pipeline.evaluate.suites.offline.short_answers import exact_match, f1, rouge_l
from pipeline.evaluate.suites.offline.short_answers import score as score_answer
from pipeline.evaluate.suites.offline.sources import SOURCES

# Pieces from which texts arise that look like options of their own.
_PIECES = st.lists(
    st.sampled_from(["A. ", "B. ", "C. ", "D. ", "E. ", "\n", "\nB. ", "A.", " ", "x", "é", "\r", "\x85"])
)
_TEXTS = st.lists(_PIECES.map("".join), min_size=2, max_size=5)


def _written(texts: list[str]) -> str:
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))


def _question(**changes: object) -> str:
    row = {"question": "What is wet?", "options": "A. fire\nB. sand\nC. water\nD. wind", "answer": "C. water"}
    return json.dumps({key: value for key, value in (row | changes).items() if value is not None})


@given(_TEXTS, st.booleans())
@example(["one", "two\nC. three", "four"], False)
@example(["def f():\n  return 1", "pass", "x"], True)
def test_options_are_read_as_they_were_written_or_refused(texts, empty_line_first):
    try:
        assert read_options("\n" * empty_line_first + _written(texts), len(texts)) == texts
    except Defect:
        # Refused only for a blank text, or for a line inside a text that begins like an option.
        inside = [line for text in texts for line in text.split("\n")[1:]]
        assert any(not text.strip() for text in texts) or any(line[1:3] == ". " for line in inside)


@given(_TEXTS, st.data())
def test_an_answer_is_found_where_it_was_written_or_refused(texts, data):
    index = data.draw(st.integers(0, len(texts) - 1))
    letter = data.draw(st.sampled_from(LETTERS[: len(texts)]))
    try:
        found = read_answer(f"{letter}. {texts[index]}", texts)
    except Defect:
        same = [text.strip() for text in texts].count(texts[index].strip())
        assert same > 1 or LETTERS.index(letter) != index
    else:
        assert found == LETTERS.index(letter)
        assert texts[found] == texts[index]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"options": "A. fire\nB. sand\nC. water"}, "its options are not A to D"),
        ({"options": "A. fire\nB. sand\nC. water\nD. wind\nE. ice"}, "its options are not A to D"),
        ({"options": "A. fire\nC. water\nB. sand\nD. wind"}, "its options are not A to D"),
        ({"options": "A. fire\nB. sand\nB. dust\nC. water\nD. wind"}, "its options are not A to D"),
        ({"options": "Choose.\nA. fire\nB. sand\nC. water\nD. wind"}, "text before its first option"),
        ({"options": "A. fire\nB.  \nC. water\nD. wind"}, "a blank option"),
        ({"options": None}, "no options"),
        ({"options": ["fire", "sand", "water", "wind"]}, "no options"),
        ({"options": "A. water\nB. sand\nC. water\nD. wind"}, "its answer appears twice among the options"),
        ({"question": " "}, "no question"),
        ({"answer": None}, "no answer"),
        ({"answer": ""}, "no answer"),
        ({"answer": 2}, "no answer"),
        ({"answer": "C. ice"}, "its answer is not among the options"),
        ({"answer": "water"}, "its answer is not among the options"),
        ({"answer": "B. water"}, "its answer's letter and text disagree"),
    ],
)
def test_a_malformed_question_is_left_out_and_counted_by_reason(changes, reason):
    found = usable_rows([_question(), _question(**changes)], convert.mmlu)
    assert found.usable == [{"question": "What is wet?", "choices": ["fire", "sand", "water", "wind"], "answer": 2}]
    assert found.left_out == Counter({reason: 1})
    assert found.summary("mmlu") == f"mmlu: 1 of 2 rows; 1 left out: {reason} (1)"


def test_options_that_differ_in_case_alone_are_different():
    row = json.loads(_question(options="A. BB BB\nB. BB Bb\nC. Bb Bb\nD. Bb bb", answer="C. Bb Bb"))
    assert convert.mmlu(row)["answer"] == 2


def test_lines_that_hold_no_row_are_counted():
    found = usable_rows([_question(), "{", "[1]", "null"], convert.mmlu)
    assert found.left_out == Counter({"not a JSON object": 2, "not JSON": 1})
    assert found.summary("x") == "x: 1 of 4 rows; 3 left out: not a JSON object (2), not JSON (1)"


def test_a_repeated_question_stays_once_and_a_contradicted_one_not_at_all():
    repeated, contradicted = _question(), [_question(question="Why?"), _question(question="Why?", answer="A. fire")]
    found = usable_rows([repeated, *contradicted, repeated], convert.mmlu)
    assert [row["question"] for row in found.usable] == ["What is wet?"]
    assert found.left_out == Counter({"repeats another question with another answer": 2, "repeats another row": 1})


def test_answers_in_different_words_do_not_contradict_each_other():
    lines = [json.dumps({"passage": "p", "question": "q?", "answer": answer}) for answer in (["one"], ["1", "one"])]
    found = usable_rows(lines, convert.narrativeqa)
    assert found.usable == [{"passage": "p", "question": "q?", "answers": ["one"]}]
    assert found.left_out == Counter({"repeats another row": 1})


def test_the_order_follows_from_the_content_alone():
    lines = [_question(question=f"Question {number}?") for number in range(30)]
    assert usable_rows(lines, convert.mmlu).usable == usable_rows(lines[::-1], convert.mmlu).usable
    ordered = [row["question"] for row in usable_rows(lines, convert.mmlu).usable]
    assert ordered != [f"Question {number}?" for number in range(30)]
    kept = [row["question"] for row in usable_rows(lines[:20], convert.mmlu).usable]
    assert kept == [question for question in ordered if question in kept]


@pytest.mark.parametrize(
    ("converter", "row", "wanted"),
    [
        (
            convert.openbookqa,
            {"question": "Water is ", "options": "A. dry\nB. wet\nC. red\nD. big", "answer": "B. wet"},
            {
                "question_stem": "Water is",
                "choices": {"text": ["dry", "wet", "red", "big"], "label": ["A", "B", "C", "D"]},
                "answerKey": "B",
            },
        ),
        (
            convert.piqa,
            {"question": "Boil", "options": "A. heat it \nB. cool it", "answer": "A. heat it "},
            {"goal": "Boil", "sol1": "heat it ", "sol2": "cool it", "label": 0},
        ),
        (
            convert.social_iqa,
            {"passage": "P fell.", "question": "How is P?", "options": "A. up\nB. sore\nC. ok", "answer": "B. sore"},
            {
                "context": "P fell.",
                "question": "How is P?",
                "answerA": "up",
                "answerB": "sore",
                "answerC": "ok",
                "label": "2",
            },
        ),
        (
            convert.boolq,
            {"question": "is it", "title": "It", "passage": "It is.", "answer": "True"},
            {"question": "is it", "passage": "It -- It is.", "label": 1},
        ),
        (
            convert.boolq_joined,
            {"question": "is it", "passage": "It -- It is not.", "label": False, "idx": 3},
            {"question": "is it", "passage": "It -- It is not.", "label": 0},
        ),
        (
            convert.nq_open,
            {"question": "who", "answer": ["MÃ¡ire", "Máire", " M. "]},
            {"question": "who", "answer": ["Máire", "M."]},
        ),
    ],
)
def test_a_row_becomes_one_of_the_hubs_data_set(converter, row, wanted):
    assert converter(row) == wanted


@pytest.mark.parametrize(
    ("converter", "row", "reason"),
    [
        (convert.boolq, {"question": "q", "title": "t", "passage": "p", "answer": "yes"}, "neither True nor False"),
        (convert.boolq, {"question": "q", "title": "t", "passage": "p"}, "neither True nor False"),
        (convert.boolq, {"question": "q", "passage": "p", "answer": "True"}, "no title"),
        (convert.boolq_joined, {"question": "q", "passage": "p"}, "no label"),
        (convert.nq_open, {"question": "q", "answer": []}, "no answer"),
        (convert.nq_open, {"question": "q", "answer": "one"}, "no answer"),
        (convert.nq_open, {"question": "q", "answer": [" "]}, "no answer"),
        (convert.nq_open, {"question": "q", "answer": ["JÃ¶ns", "fiancĂŠ"]}, "its answers are garbled"),
        (convert.narrativeqa, {"question": "q", "passage": "", "answer": ["a"]}, "no passage"),
        (convert.asdiv, {"question": "q", "passage": "p", "answer": "Mrs. Hilt"}, "its answer is not one number"),
        (convert.asdiv, {"question": "q", "passage": "p", "answer": "6; 9"}, "its answer is not one number"),
    ],
)
def test_other_malformed_rows_are_refused_with_the_reason(converter, row, reason):
    with pytest.raises(Defect, match=reason):
        converter(row)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("9 apples", 9),
        ("1,350 km/hour", 1350),
        ("0.46 dollars", Fraction(46, 100)),
        ("-1/3", Fraction(-1, 3)),
        ("1 1/2 cups", Fraction(3, 2)),
        ("36 sq. inches", 36),
        ("12 star-shaped stones", 12),
        ("6th", 6),
        ("3:4", (3, 4)),
        ("9:03:36 a.m.", (9, 3, 36)),
        ("They are equal", None),
        ("The 60th caller.", None),
        ("6 km; 4 km/hour", None),
        ("11:55 p.m. on 24 December 2014.", None),
    ],
)
def test_the_number_of_an_answer(answer, number):
    assert read_number(answer) == number


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("There are 14 apples, not 9.", 14),
        ("$1,234.50 in all", Fraction("1234.5")),
        ("5, 6 and 7", 5),
        ("between 3-4", 3),
        ("it is -4", -4),
        ("− 4 or (-5)", 4),
        (".5", Fraction(1, 2)),
        ("10/20/2020", 10),
        ("1/0", 1),
        ("nine", None),
        ("", None),
    ],
)
def test_the_first_number_of_a_line(line, number):
    assert first_number(line) == number


@given(st.integers(-(10**9), 10**9), st.integers(1, 999))
def test_a_number_is_read_in_every_way_of_writing_it(number, under):
    assert first_number(f"so {number} apples") == first_number(f"so {number:,} apples") == number
    assert first_number(f"{number}/{under}") == Fraction(number, under)
    assert first_number(f"{number / 100:.2f}") == Fraction(number, 100)


def test_a_word_problem_is_scored_by_the_first_number_of_the_first_line():
    def scored(answer: str, written: str) -> float:
        return score_number({"answer": answer}, [written])["exact_match"]

    assert scored("9 apples", " 9\nQuestion: 4") == scored("9 apples", "\n\n9.0 pears") == 1
    assert scored("1/2", "0.5") == scored("3:4", "3:4.") == 1
    assert scored("9 apples", "7 + 2 = 9") == scored("9 apples", "19") == scored("9 apples", "") == 0
    assert scored("3:4", "3/4") == scored("3:4", "6:8") == 0


def test_short_answers_are_compared_without_case_punctuation_and_articles():
    assert exact_match("The Dusar.", "dusar") == f1("The Dusar.", "dusar") == 1
    assert exact_match("theatre", "atre") == 0
    assert f1("a red big house", "the house of bricks") == pytest.approx(2 * 1 / (3 + 3))
    assert f1("no no no", "no") == pytest.approx(0.5)
    assert f1("", "the") == exact_match("the", "") == 1
    assert f1("", "house") == f1("house", "the") == 0
    # The longest common subsequence of five and four words has three.
    assert rouge_l("she drove her car home", "she drove home slowly") == pytest.approx(2 * 3 / (5 + 4))


def test_a_short_answer_counts_by_the_reference_that_gives_most():
    found = score_answer({"answers": ["In a bar.", "New York"]}, [" New York City\nQuestion: what"])
    assert found["f1"] == found["rouge_l"] == pytest.approx(2 * 2 / (3 + 2))
    assert found["exact_match"] == 0
    assert score_answer({"answers": ["x"]}, [""]) == {"f1": 0, "exact_match": 0, "rouge_l": 0}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_line_of_a_file_is_used_or_counted(name):
    found = checked(name)
    assert len(found.usable) + found.left_out.total() == len(lines_of(SOURCES[name].path()))
    assert len(found.usable) > 0.9 * len(lines_of(SOURCES[name].path()))
    assert len({json.dumps(row) for row in found.usable}) == len(found.usable)


def test_passages_with_their_titles_are_those_of_the_joined_file():
    path = SOURCES["boolq"].examples_path()
    joined = {(row["question"], row["passage"]): row.get("label") for row in map(json.loads, lines_of(path))}
    assert all(joined[row["question"], row["passage"]] == bool(row["label"]) for row in rows("boolq"))


@pytest.mark.parametrize("name", ["boolq", "nq_open"])
def test_further_rows_for_examples_are_none_of_those_asked(name):
    asked = {row["question"] for row in rows(name)}
    assert len(examples(name)) > 1000
    assert not asked & {row["question"] for row in examples(name)}
    assert set(examples(name)[0]) == set(rows(name)[0])


def test_correct_programs_of_the_package_belong_to_their_prompts():
    found = rows("humaneval")
    assert len(found) == 164
    for row in found[:20]:
        compile(row["prompt"] + row["canonical_solution"] + row["test"], row["task_id"], "exec")
