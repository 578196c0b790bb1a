"""Runs that are resumed by the same job, and ids that a server has deleted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_wandb import forget_account, serving, use

from pipeline.track import Receipt, RunSpec, read_run, run, track
from pipeline.track.run_ids import reserved


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_account(monkeypatch, tmp_path / "home")


def run_job(outputs: Path, mode: str = "offline", earlier: Mapping[str, Any] | None = None) -> Receipt:
    """A job that logs its score once, as far as its tracking is concerned."""
    spec = RunSpec(outputs, mode, "mine", None, "dense", "sweep-1", "dense", (), {}, job="0123", earlier=earlier or {})
    with track(spec) as tracker:
        if tracker.begins("scores", "store/evaluation/4567"):
            tracker.history({"score": 1.0})
    assert tracker.receipt.verified, tracker.receipt.problem
    return tracker.receipt


def test_the_id_is_the_jobs_with_a_word_of_the_outputs(tmp_path: Path) -> None:
    first = run_job(tmp_path / "a")
    again, elsewhere = run_job(tmp_path / "a", earlier=first.facts()), run_job(tmp_path / "b")
    assert first.run_id == again.run_id == f"0123-{(tmp_path / 'a' / 'wandb' / 'word.txt').read_text()}"
    assert elsewhere.run_id != first.run_id
    assert elsewhere.run_id.startswith("0123-")
    assert again.directory is not None
    assert read_run(again.directory).history == []


def test_two_jobs_at_once_do_not_write_into_one_run(tmp_path: Path) -> None:
    with reserved(tmp_path, "0123-abc") as first, reserved(tmp_path, "0123-abc") as second:
        assert first == "0123-abc"
        assert second.startswith("0123-abc-")


def test_a_resumed_run_goes_on_where_the_server_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        use(monkeypatch, server)
        first = run_job(tmp_path, "online")
        again = run_job(tmp_path, "online", first.facts())
        assert [row["score"] for row in server.history[first.run_id]] == [1.0]
        # What the record does not know of is added behind.
        run_job(tmp_path, "online")
        rows = server.history[first.run_id]
    assert again.run_id == first.run_id
    assert [(row["score"], row["_step"]) for row in rows] == [(1.0, 0), (1.0, 1)]


def test_a_deleted_id_is_replaced_once_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # wandb tries again until its time is up.
    monkeypatch.setattr(run, "INIT_SECONDS", 2.0)
    with serving() as server:
        use(monkeypatch, server)
        first = run_job(tmp_path, "online")
        server.deleted.add(first.run_id)
        del server.history[first.run_id]
        second = run_job(tmp_path, "online", first.facts())
        said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert said == [f"W&B: the run {first.run_id} was deleted on the server; a new one is logged: {second.run_id}"]
        third = run_job(tmp_path, "online", second.facts())
    assert (second.mode, third.mode) == ("online", "online")
    assert third.run_id == second.run_id != first.run_id
    assert [row["score"] for row in server.history[second.run_id]] == [1.0]
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
