"""Runs against servers of this machine: one that takes runs, one that refuses them, one that is not there."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from fake_wandb import FakeServer, forget_account, serving, use

from pipeline.track import RunSpec, Tracker, read_run, track
from pipeline.track.connection import api_key, base_url, resolve_mode


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_account(monkeypatch, tmp_path / "home")


def spec_in(folder: Path, mode: str) -> RunSpec:
    return RunSpec(folder, mode, "pruning", None, "dense", "sweep-1", "evaluate", (), {"seed": 1})


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server that a key is at hand for; it refuses all keys if the test's parameter says so."""
    with serving(refuses=getattr(request, "param", False)) as fake:
        use(monkeypatch, fake)
        yield fake


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def _score_once(spec: RunSpec) -> Tracker:
    with track(spec) as run:
        run.summary({"score": 1.0})
    return run


def test_online_run_arrives(
    tmp_path: Path, server: FakeServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with track(spec_in(tmp_path, "auto")) as run:
        run.summary({"score": 1.0})
        run.curve("free_running", pd.DataFrame({"step": [0, 1], "kl": [0.0, 0.5]}), "step")
    receipt = run.receipt
    assert (receipt.mode, receipt.verified, receipt.sync_command) == ("online", True, None)
    assert receipt.url == f"{server.url}/team/pruning/runs/{receipt.run_id}"
    history = server.received["wandb-history.jsonl"]
    assert [(row["step"], row["free_running/kl"]) for row in history] == [(0, 0.0), (1, 0.5)]
    assert server.received["wandb-summary.json"][-1]["score"] == 1.0
    assert server.exit_code == 0
    assert [record.message for record in caplog.records if record.name.startswith("pipeline")] == []
    assert capfd.readouterr() == ("", "")


def test_artifact_that_the_server_does_not_take_is_reported(tmp_path: Path, server: FakeServer) -> None:
    source = tmp_path / "decision.json"
    source.write_text("{}")
    with track(spec_in(tmp_path, "online")) as run:
        run.artifact("decision", "decision", [source], {})
    assert (run.receipt.mode, run.receipt.exit_code, run.receipt.verified) == ("online", 0, False)
    assert "artifact decision was not logged" in (run.receipt.problem or "")
    assert run.receipt.directory is not None
    assert read_run(run.receipt.directory).exit_code == 0


def test_unreachable_server_keeps_the_run_on_disk(
    tmp_path: Path, closed_port: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", closed_port)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    receipt = _score_once(spec_in(tmp_path, "online")).receipt
    assert (receipt.mode, receipt.verified) == ("offline", True)
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"W&B: no online run ({closed_port} does not respond); the run is stored on disk"
    ]


@pytest.mark.parametrize("server", [True], indirect=True)
def test_refused_key_keeps_the_run_on_disk(
    tmp_path: Path, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    receipt = _score_once(spec_in(tmp_path, "auto")).receipt
    assert (receipt.mode, receipt.verified) == ("offline", True)
    assert "no online run" in caplog.text
    assert [path.name for path in (tmp_path / "wandb").glob("*run-*")] == [getattr(receipt.directory, "name", "")]


def test_mode_follows_key_server_and_environment(
    server: FakeServer, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_mode("auto").mode == "online"
    monkeypatch.delenv("WANDB_API_KEY")
    assert resolve_mode("auto").reason == "no API key: run `wandb login` or set WANDB_API_KEY"
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("http_proxy", closed_port)
    monkeypatch.setenv("no_proxy", "")
    assert resolve_mode("auto").mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto").mode == "disabled"
    assert resolve_mode("offline").mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ValueError, match="unknown WANDB_MODE 'sometimes'"):
        resolve_mode("auto")
    with pytest.raises(ValueError, match="choose from auto, online, offline, disabled"):
        resolve_mode("on")


def test_key_and_server_come_from_the_files_of_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert base_url() == "https://api.wandb.ai"
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "settings").write_text("[default]\nbase_url = https://wandb.example.org/\n")
    assert base_url() == "https://wandb.example.org"
    assert api_key(base_url()) is None
    (tmp_path / "netrc").write_text("machine wandb.example.org login user password secret-key\n")
    assert api_key(base_url()) == "secret-key"
    assert api_key("https://api.wandb.ai") is None
