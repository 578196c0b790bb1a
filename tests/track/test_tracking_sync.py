"""Runs that were kept on disk are sent later, each one once, to a server of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_wandb import FakeServer, forget_account, serving, use

from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord
from pipeline.track import RunSpec, sync, track


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_account(monkeypatch, tmp_path / "home")


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    with serving(refuses=getattr(request, "param", False)) as fake:
        use(monkeypatch, fake)
        yield fake


def keep(outputs: Path, name: str, files: tuple[Path, ...] = ()) -> Path:
    """A finished run, kept on disk."""
    with track(RunSpec(outputs, "offline", "pruning", None, name, "sweep-1", "dense", (), {"seed": 1})) as run:
        run.summary({"score": 1.0})
        if files:
            run.artifact("decision", "decision", files, {})
    assert run.receipt.directory is not None
    return run.receipt.directory


def cut(run: Path) -> Path:
    """As if its process had been killed, or were still at it."""
    (log,) = run.glob("*.wandb")
    os.truncate(log, log.stat().st_size - 8)
    return run


def test_each_run_is_sent_once(tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, killed = keep(tmp_path, "first"), keep(tmp_path, "second"), cut(keep(tmp_path, "killed"))
    assert sync.main(["--outputs", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    # Runs of the same second are told in any order.
    assert [line.split()[0] for line in said[1:4]] == ["1/3", "2/3", "3/3"]
    sent, left = sorted(line.split(maxsplit=2)[1:] for line in said[1:4] if " sent " in line), said[1:4]
    assert [name for _, name in sent] == sorted([first.name, second.name])
    why = f"left   {killed.name}: its log is incomplete: its job is still running or was killed"
    assert [why in line for line in left if " sent " not in line] == [True]
    assert sorted(run["displayName"] for run in server.runs if run["displayName"]) == ["first", "second"]
    before = len(server.requests)
    assert sync.main(["--outputs", str(tmp_path)]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == ["left"]
    assert len(server.requests) == before
    shutil.rmtree(killed)
    assert sync.main(["--outputs", str(tmp_path)]) == 0
    assert "every run in" in capsys.readouterr().out


def test_parts_of_one_run_are_sent_one_after_another(tmp_path: Path, server: FakeServer) -> None:
    earlier = {}
    for row in (1.0, 2.0):
        spec = RunSpec(tmp_path, "offline", "mine", None, "job", "g", "dense", (), {}, job="0123", earlier=earlier)
        with track(spec) as run:
            run.history({"score": row})
        earlier = run.receipt.facts()
    assert sync.main(["--outputs", str(tmp_path)]) == 0
    (rows,) = server.history.values()
    assert [row["score"] for row in rows] == [1.0, 2.0]
    assert {run["name"] for run in server.runs} == {run.receipt.run_id}


def test_what_was_offline_is_not_sent_once_it_is_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeServer
) -> None:
    earlier = {}
    for mode in ("offline", "online"):
        spec = RunSpec(tmp_path, mode, "mine", None, "job", "g", "dense", (), {}, job="0123", earlier=earlier)
        with track(spec) as run:
            if run.begins("scores", "store/evaluation/4567"):
                run.history({"score": 1.0})
        earlier = run.receipt.facts()
    assert sync.unsent(Store(tmp_path)) == []
    assert [row["score"] for row in server.history[run.receipt.run_id]] == [1.0]


def test_what_a_server_takes_without_its_files_is_sent_again(
    tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "decision.json"
    source.write_text("{}")
    run = keep(tmp_path, "with a file", (source,))
    assert sync.main(["--outputs", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert f"1/1 failed {run.name}: not all of its files were uploaded: sender: failed to log artifact" in said.out
    assert "run the same command again to retry" in said.err
    assert sync.unsent(Store(tmp_path)) == [run]


@pytest.mark.parametrize("server", [True], indirect=True)
def test_a_refused_key_fails(tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    run = keep(tmp_path, "refused")
    assert sync.main(["--outputs", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert f"1/1 failed {run.name}: " in said.out
    assert "k" * 40 not in said.out + said.err
    assert not list(run.glob("*.synced"))


def test_without_a_key_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sync.main(["--outputs", str(tmp_path)]) == 0
    assert "no run in" in capsys.readouterr().out
    keep(tmp_path, "kept")
    assert sync.main(["--outputs", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == "runs to upload: 1; none was uploaded: no API key: run `wandb login` or set WANDB_API_KEY\n"
    )


def test_an_online_run_that_lost_its_server_waits_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cut_off, whole = tmp_path / "wandb" / "run-2-cut", tmp_path / "wandb" / "run-1-whole"
    for folder in (cut_off, whole):
        folder.mkdir(parents=True)
        (folder / "run.wandb").write_bytes(b"")
    for folder, command in ((cut_off, f"wandb sync {cut_off}"), (whole, None)):
        record = JobRecord(folder.name, "", "", "random", "wanda", "0.5")
        record.wandb = {"directory": str(folder), "sync": command}
        record.save(store)
    assert sync.unsent(store) == [cut_off]
