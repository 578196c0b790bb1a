"""The choice of cases by commit: the same for a commit, another for others, and all where all are asked for."""

from __future__ import annotations

import pytest
from choice import header, some

CASES = [f"case{number}" for number in range(12)]


@pytest.fixture
def at(monkeypatch):
    """``at("abc")`` chooses as at that commit."""
    monkeypatch.setattr("choice._told", {})

    def choose(commit: str, every: str = "", **options) -> list[str]:
        monkeypatch.setenv("TEST_COMMIT", commit)
        monkeypatch.setenv("TEST_ALL", every)
        return some("cases", CASES, **options)

    return choose


def test_two_cases_by_the_commit_and_all_of_them_over_the_commits(at):
    assert len(at("abc")) == 2
    assert at("abc") == at("abc")
    assert {case for number in range(100) for case in at(str(number))} == set(CASES)
    assert set(at("abc")) < set(at("abc", count=3))


def test_some_come_always_and_none_is_counted_twice(at):
    for number in range(20):
        chosen = at(str(number), always=["case7"])
        assert "case7" in chosen and len(chosen) == 3
        assert chosen == sorted(chosen, key=CASES.index)


def test_all_are_chosen_where_all_are_asked_for(at):
    assert at("abc", every="1") == CASES
    assert header() == ["all cases are run"]
    assert len(at("abc", every="0")) == 2


def test_what_is_left_out_is_told(at):
    first, second = at("abcdef")
    assert header() == [
        "chosen by commit abcdef; `make test-all` (TEST_ALL=1) runs all",
        f"  cases: {first}, {second} of 12",
    ]
