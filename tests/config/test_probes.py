"""Probe prompts from files: what can be written in them, and what is said of anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import json_lines
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import chosen

from pipeline.config.probes import LETTERS, PROBES, Probe, encode, read_probes

QUESTION = {"text": "Which is red?", "name": "red", "options": ["Grass", "Blood"], "answer": "B"}


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_without_a_file_the_twelve_built_in_ones_are_probed():
    assert read_probes(None) is PROBES


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    path = write(tmp_path, "p.txt", "\ufeffFirst prompt\r\n\r\n  Second: ü \u2028 on \n\n")
    assert read_probes(path) == (
        Probe("prompt-1", "First prompt", "open"),
        Probe("prompt-3", "Second: ü \u2028 on", "open"),
    )


def test_a_json_lines_file_has_an_object_a_line(tmp_path):
    rows = ({"text": "Go on:", "steps": 3}, {"text": "2 + 2 =", "format": "sum", "name": "four"}, QUESTION)
    assert read_probes(str(write(tmp_path, "p.jsonl", json_lines(*rows)))) == (
        Probe("prompt-1", "Go on:", "open", steps=3),
        Probe("four", "2 + 2 =", "sum"),
        Probe("red", "Which is red?", "choice", options=("Grass", "Blood"), answer=1),
    )


def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path):
    path = write(tmp_path, "p.jsonl", json.dumps({"text": "one\u2028two\x85three"}, ensure_ascii=False))
    assert [probe.text for probe in read_probes(path)] == ["one\u2028two\x85three"]


def test_options_are_listed_by_letter(tmp_path, tokenizer):
    (probe,) = read_probes(write(tmp_path, "p.jsonl", json_lines(QUESTION)))
    listed = "Which is red?\nA. Grass\nB. Blood\nGive the letter of the right answer and explain it in one sentence."
    assert probe.prompt == listed
    assert tokenizer.decode(encode(probe, tokenizer)) == listed
    assert tokenizer.decode(encode(probe, tokenizer, opening="Answer:")) == f"{listed}\nAnswer:"


WRONG_LINES = {
    "not json": ("{", "invalid JSON", '{"text": "a prompt"}'),
    "too deep": ("[" * 100_000, "invalid JSON", '{"text": "a prompt"}'),
    "half a character": (r'{"text": "\ud800"}', "invalid JSON", '{"text": "a prompt"}'),
    "a list": ('["text"]', 'give an object whose "text" is the prompt', ""),
    "no text": ('{"prompt": "x"}', 'give an object whose "text" is the prompt', ""),
    "empty text": ('{"text": " "}', 'give an object whose "text" is the prompt', ""),
    "text of another kind": ('{"text": 3}', 'give an object whose "text" is the prompt', ""),
    "unknown key": ('{"text": "x", "choices": []}', "unknown key choices", "options"),
    "one option": ('{"text": "x", "options": ["a"]}', "a list of 2 to 10 strings", ""),
    "eleven options": (json.dumps({"text": "x", "options": ["a"] * 11}), "a list of 2 to 10 strings", ""),
    "a hundred options": (json.dumps({"text": "x", "options": ["a"] * 100}), "a list of 2 to 10 strings", ""),
    "options in a string": ('{"text": "x", "options": "ab"}', "a list of 2 to 10 strings", ""),
    "numbers as options": ('{"text": "x", "options": [1, 2]}', "a list of 2 to 10 strings", ""),
    "no steps": ('{"text": "x", "steps": 0}', "steps=0 should be a whole number of at least 1", ""),
    "true steps": ('{"text": "x", "steps": true}', "steps=True should be a whole number of at least 1", ""),
    "half a step": ('{"text": "x", "steps": 1.5}', "steps=1.5 should be a whole number of at least 1", ""),
    "name of another kind": ('{"text": "x", "name": 3}', "name should be a string", ""),
    "format of another kind": ('{"text": "x", "format": []}', "format should be a string", ""),
    "answer beyond the options": ('{"text": "x", "options": ["a", "b"], "answer": "C"}', "one of the letters A, B", ""),
    "answer in full": ('{"text": "x", "options": ["a", "b"], "answer": "AB"}', "one of the letters A, B", ""),
    "answer as a number": ('{"text": "x", "options": ["a", "b"], "answer": 0}', "one of the letters A, B", ""),
    "answer without options": ('{"text": "x", "answer": "A"}', "one of the letters (no options)", ""),
    "a name twice": ('{"text": "x", "name": "first"}', "'first' too; give each its own name", ""),
    "a given name twice": ('{"text": "x", "name": "prompt-2"}', "'prompt-2' too; give each its own name", ""),
}


@pytest.mark.parametrize("case", WRONG_LINES)
def test_a_wrong_line_is_named_with_the_way_out(tmp_path, case):
    line, problem, way_out = WRONG_LINES[case]
    path = write(tmp_path, "p.jsonl", f'{{"text": "fine", "name": "first"}}\n{{"text": "fine too"}}\n\n{line}\n')
    with pytest.raises(ValueError) as caught:
        read_probes(path)
    message = str(caught.value)
    assert message.startswith(f"probes={path}, line 4: ")
    assert problem in message
    assert way_out in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.csv", b"text\nx\n", "give a .txt file with one prompt per line, or a .jsonl file with one object per line"),
        ("p.txt", b"\xff\xfe", "cannot be read as text"),
        ("p.txt", b" \n\n", "contains no prompt; write one per line"),
        ("p.jsonl", b"", "contains no prompt; write one per line"),
    ],
)
def test_a_wrong_file_is_named_with_the_way_out(tmp_path, name, content, expected):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError) as caught:
        read_probes(path)
    assert str(caught.value).startswith(f"probes={path}")
    assert expected in str(caught.value)


def test_what_is_no_file_is_named_with_the_way_out(tmp_path):
    for path in (tmp_path, tmp_path / "missing.txt", "~nobody-at-all/p.txt", ""):
        with pytest.raises(ValueError) as caught:
            read_probes(path)
        assert str(caught.value).startswith(f"probes={path} cannot be read as text")
        assert str(caught.value).endswith("give a .txt or .jsonl file")


# No halves of surrogate pairs, which no file in UTF-8 can hold.
LINES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=14,
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(min_size=1, max_size=5) | VALUES,
        "name": st.text(max_size=2) | VALUES,
        "format": st.text(max_size=2) | VALUES,
        "steps": st.integers(-1, 3) | VALUES,
        "options": st.lists(st.text(max_size=2), max_size=12) | VALUES,
        "answer": st.sampled_from(LETTERS) | VALUES,
    },
)


@chosen(2)
@given(st.lists(LINES, max_size=4))
def test_any_text_is_one_prompt_a_line_or_refused(tmp_path_factory, lines):
    path = write(tmp_path_factory.getbasetemp(), "any.txt", "\n".join(lines))
    texts = [line.strip() for line in "\n".join(lines).removeprefix("\ufeff").split("\n") if line.strip()]
    if texts:
        assert [probe.prompt for probe in read_probes(path)] == texts
    else:
        with pytest.raises(ValueError, match="contains no prompt"):
            read_probes(path)


@chosen(4)
@given(st.lists(LINES | ROWS.map(json.dumps) | VALUES.map(json.dumps), max_size=3))
def test_any_json_lines_give_probes_that_can_be_asked_or_are_refused(tmp_path_factory, tokenizer, lines):
    path = write(tmp_path_factory.getbasetemp(), "any.jsonl", "\n".join(lines))
    try:
        probes = read_probes(path)
    except ValueError as error:
        assert str(error).startswith(f"probes={path}")
        return
    assert len({probe.name for probe in probes}) == len(probes) == sum(bool(line.strip()) for line in lines)
    for probe in probes:
        assert probe.name
        assert probe.format
        assert probe.steps is None or probe.steps >= 1
        assert not probe.options or 2 <= len(probe.options) <= 10
        assert probe.answer is None or probe.answer < len(probe.options)
        assert tokenizer.decode(encode(probe, tokenizer)) == probe.prompt
