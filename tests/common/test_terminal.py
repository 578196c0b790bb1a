"""Tables and sentences for people: they fit the width, and no number is broken."""

from __future__ import annotations

import logging
import sys
from functools import partial

import pytest
from screen import on_a_terminal
from tqdm import tqdm

from pipeline.common.terminal import BarSafeHandler, progress, show_table, wrapped


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def lines_of(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_long_texts_are_folded_and_numbers_are_not(capsys) -> None:
    name = "a_name_of_sixty_characters_" + "x" * 33
    show_table("", ["model", "score"], [[name, "0.123 ± 0.456"]])
    lines = lines_of(capsys)
    assert max(map(len, lines)) <= 40
    assert sum("0.123 ± 0.456" in line for line in lines) == 1
    assert name in "".join(line.split(" ")[0] for line in lines)


def test_columns_that_do_not_fit_come_below_with_the_first_one(capsys) -> None:
    columns = ["variant", *(f"number {place}" for place in range(8))]
    show_table("Many", columns, [[name, *(f"{place}.123456" for place in range(8))] for name in ("one", "two")])
    lines = lines_of(capsys)
    assert max(map(len, lines)) <= 40
    assert sum(line.startswith("one") for line in lines) == sum(line.startswith("two") for line in lines) == 3
    for place in range(8):
        assert sum(f"{place}.123456" in line for line in lines) == 2


def test_brackets_are_text(capsys) -> None:
    show_table("", ["task.names"], [["[red]gsm8k"]], note="[bold] note")
    said = "\n".join(lines_of(capsys))
    assert "[red]gsm8k" in said and "[bold] note" in said


def test_sentences_break_between_words_but_not_within_numbers() -> None:
    for words in range(1, 8):
        text = f"{'word ' * words}retains 39 % [35, 44] of 0.5 ± 0.1 in 30 s"
        assert wrapped(text).replace("\n  ", " ") == text
        for line in wrapped(text).splitlines():
            assert len(line) <= 40
            assert not line.rstrip().endswith(("39", "±", "[35,", "30")) and not line.strip().startswith(("%", "±"))


@pytest.mark.parametrize(("terminal", "plain", "code"), [(True, "", "31"), (True, "1", ""), (False, "", "")])
def test_failures_are_coloured_on_a_terminal(monkeypatch, capsys, terminal: bool, plain: str, code: str) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", plain)
    monkeypatch.setenv("TERM", "xterm")
    handler = BarSafeHandler()
    for level, text in ((logging.INFO, "fine"), (logging.ERROR, "failed: no memory")):
        handler.emit(logging.LogRecord("pipeline", level, "", 0, text, (), None))
    said = capsys.readouterr().err
    assert "\nfine\n" in f"\n{said}"
    assert (f"\033[{code}mfailed: no memory\033[0m" if code else "\nfailed: no memory\n") in said


def test_a_bar_is_only_where_a_terminal_shows_it(monkeypatch, capsys) -> None:
    assert list(progress(range(3), "loop", 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    # tqdm reads its settings when it is imported, which may be after `quiet_libraries` has set them.
    monkeypatch.setattr("pipeline.common.terminal.tqdm", partial(tqdm, disable=False, delay=0))
    assert list(progress(range(3), "loop", 3)) == [0, 1, 2]
    assert "loop" in capsys.readouterr().err


def test_nothing_stays_on_the_screen_of_bars_that_have_ended(tmp_path) -> None:
    """In a terminal of its own, as libraries show them: before them and after them, the same lines."""
    script = tmp_path / "work.py"
    script.write_text(
        """
from pipeline.common.quiet import quiet_libraries
quiet_libraries()
import sys, time
from tqdm import tqdm
from pipeline.common.heartbeat import stage, working
from pipeline.common.terminal import advancing, progress
print("first", file=sys.stderr)
with working("a job"):
    stage("evaluate")
    for _ in progress(range(3), "ours", 3):
        time.sleep(0.6)
    with advancing("answers", 3) as advance:
        for _ in range(3):
            time.sleep(0.6)
            advance(1)
    for _ in tqdm(range(3), desc="a library's"):
        time.sleep(0.6)
print("last", file=sys.stderr)
"""
    )
    shown = on_a_terminal([sys.executable, str(script)])
    for bar in ("a job: evaluate", "ours", "answers", "a library's"):
        assert any(bar in line for line in shown.ever), f"{bar} was never shown"
    assert shown.left == ["first", "last"]
