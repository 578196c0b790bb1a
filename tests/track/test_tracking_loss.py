"""A job goes on, and says so, when its tracking is lost: no room, no writing process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
from fake_wandb import environment, forget_account
from places import PYTHONPATH

from pipeline.track import RunSpec, Tracker, read_run, track

STEPS = pd.DataFrame({"step": range(5), "kl": [0.5] * 5})


@pytest.fixture(scope="module", autouse=True)
def _no_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        forget_account(patch, tmp_path_factory.mktemp("home"))
        yield


def spec_in(folder: Path) -> RunSpec:
    return RunSpec(folder, "offline", "pruning", None, "dense", "sweep-1", "dense", (), {"seed": 1})


def log_everything(run: Tracker, folder: Path) -> None:
    source = folder / "decision.json"
    source.write_text("{}")
    run.summary({"score": 1.0})
    run.curve("free_running", STEPS, "step")
    run.table("scores", STEPS)
    run.artifact("decision", "decision", [source], {})


def test_where_no_run_can_be_opened_the_job_has_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "wandb").write_text("in the folder's place")
    with track(spec_in(tmp_path / "outputs")) as run:
        log_everything(run, tmp_path)
    receipt = run.receipt
    assert (receipt.run_id, receipt.directory, receipt.sync_command) == ("", None, None)
    assert (receipt.exit_code, receipt.verified) == (0, False)
    assert "cannot start a run (NotADirectoryError" in (receipt.problem or "")
    assert "the job continues without one" in caplog.text
    with pytest.raises(ValueError, match="of the job itself"), track(spec_in(tmp_path / "outputs")) as run:
        raise ValueError("of the job itself")
    assert (run.receipt.exit_code, run.receipt.verified) == (1, False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass


def test_a_disk_that_fills_up_is_noticed(tmp_path: Path, small_disk: Path) -> None:
    with track(spec_in(small_disk)) as run:
        run.summary({"score": 1.0})
        fill(small_disk)
        log_everything(run, tmp_path)
    assert (run.receipt.exit_code, run.receipt.verified) == (0, False)
    assert "incomplete on disk" in (run.receipt.problem or "")
    with track(spec_in(small_disk)) as run:
        log_everything(run, tmp_path)
    assert (run.receipt.exit_code, run.receipt.verified) == (0, False)
    (small_disk / "ballast").unlink()
    with track(spec_in(small_disk)) as run:
        log_everything(run, tmp_path)
    assert run.receipt.verified, run.receipt.problem


def kill_writer() -> None:
    """End the process that writes runs, as a lack of memory would."""
    # What it starts itself has its name until another program runs in it.
    writer = next(child for child in psutil.Process().children(recursive=True) if child.name() == "wandb-core")
    writer.kill()
    writer.wait()


def four_jobs(folder: Path) -> None:
    """The writing process is killed during the first and the last job, and between the second and the third."""
    for name in ("during", "after", "again", "last"):
        with track(spec_in(folder)) as run:
            run.summary({"before": 1.0})
            if name in ("during", "last"):
                kill_writer()
            log_everything(run, folder)
        print(name, run.receipt.exit_code, run.receipt.verified, run.receipt.problem)
        if name == "after":
            kill_writer()


def test_a_killed_writer_costs_its_run_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, tmp_path],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment(PYTHONPATH=PYTHONPATH),
    )
    assert done.returncode == 0, done.stderr
    during, after, again, last = done.stdout.splitlines()
    assert during.startswith("during 0 False")
    assert "scores was not logged" in during
    assert "the run did not finish" in during
    assert last.startswith("last 0 False")
    assert (after, again) == ("after 0 True None", "again 0 True None")
    assert "Traceback" not in done.stderr
    # The killed ones have left a log without an end, or none.
    runs = [read_run(path.parent) for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb")]
    assert [run.exit_code for run in runs].count(0) == 2


if __name__ == "__main__":
    four_jobs(Path(sys.argv[1]))
