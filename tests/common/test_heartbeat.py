"""Progress without a terminal: now and then a line on what is done, how far it is, and how long it takes."""

from __future__ import annotations

import re
import threading
import time

import pytest

from pipeline.common.heartbeat import Heartbeat, Step, counted, in_words, stage, step, working
from pipeline.common.terminal import progress


def lines_of(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_lines_name_the_work_its_stage_and_how_far_it_is(capsys) -> None:
    with working("shortgpt 0.2", seconds=0.01):
        stage("evaluate")
        for turn in progress(range(4), "multiple choice", 4):
            time.sleep(0.05 if turn == 3 else 0)
    assert "  shortgpt 0.2: evaluate, multiple choice 75 %" in lines_of(capsys)


def test_a_stage_without_a_loop_tells_how_long_it_has_taken(capsys) -> None:
    with working("wanda 0.4", seconds=0.01):
        stage("capture")
        time.sleep(0.05)
    assert "  wanda 0.4: capture, 1 s so far" in lines_of(capsys)
    # Nothing comes after the end.
    time.sleep(0.03)
    assert lines_of(capsys) == []


def test_work_that_forks_is_told_without_a_thread(capsys) -> None:
    threads = threading.active_count()
    with working("figures", seconds=0.01, forks=True):
        assert threading.active_count() == threads
        time.sleep(0.05)
    assert "  figures: 1 s so far" in lines_of(capsys)
    time.sleep(0.03)
    assert lines_of(capsys) == []


def test_the_innermost_loop_is_told_and_a_broken_one_is_forgotten() -> None:
    with working("job", seconds=60):
        assert Heartbeat.current is not None
        with step("outer", 10) as advance:
            advance(5)
            for _ in counted(range(3), "inner", 3):
                assert Heartbeat.current.line.endswith(": inner 0 %")
                break
            assert Heartbeat.current.line.endswith(": outer 50 %")
    assert Heartbeat.current is None
    # Outside of work that is told, loops are loops.
    assert list(progress(range(3), "loop", 3)) == [0, 1, 2]


def test_the_time_left_follows_from_the_pace() -> None:
    assert Step("steps", 4, 1, began=time.monotonic() - 100).words == "steps 25 %, about 5 min left"
    assert Step("steps", 4, 1).words == "steps 25 %"


@pytest.mark.parametrize("who", ["shortgpt 0.2", "a pruner of mine with a very long name, and with options too " * 2])
def test_a_line_fits_eighty_columns(who: str) -> None:
    beat = Heartbeat(who)
    beat.begin("measure")
    with beat.step("measure, sublayer by sublayer", 60):
        assert len(beat.line) < 80
        assert re.search(r": measure, measure, sublayer by sublayer 0 %$", beat.line)


def test_times_are_told_in_a_unit_that_people_read() -> None:
    assert [in_words(seconds) for seconds in (0.2, 59, 90, 5400)] == ["1 s", "59 s", "2 min", "1.5 h"]
