"""Sweeps whose jobs fail in every way, in real processes: the others finish, and every end is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from conftest import TINY
from fault_kinds import small_disk
from places import TESTS

from pipeline.check.launcher import launcher_problems
from pipeline.common.stopping import SIGNALS, Stopped, noticing, stoppable
from pipeline.common.streams import Tolerant
from pipeline.run.launchers.memory import Memory, memory
from pipeline.store.records import OUTCOME, JobRecord, load_records

FAULTS = TESTS / "faults"
SECONDS = 120
SIDE_BY_SIDE = ("hydra/launcher=local", "hydra.launcher.jobs=2")


@dataclass
class Command:
    """The pipeline's command line with a pruner that fails as the file of faults says, and all its processes."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "FAULTS": str(self.folder), "MARK": self.mark}
        environment |= {"PYTHONPATH": str(FAULTS), "FAULTS_OUTPUTS": str(self.outputs)}
        command = [sys.executable, "-m", "pipeline.main", *TINY, "stages=[prune]", "pruner=magnitude"]
        command += [f"outputs={self.outputs}", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        return ended(self.start(*arguments))

    def outcomes(self) -> dict[str, JobRecord]:
        """Those of the newest command, by sparsity."""
        newest = max((self.outputs / "runs").iterdir())
        return {record.sparsity: record for record in load_records(newest, f"**/{OUTCOME}")}

    def processes(self) -> list[psutil.Process]:
        """Everything that this command has started, and that is still there."""
        return [process for process in psutil.process_iter() if self.mark in _environment(process)]

    def hanging(self, count: int) -> None:
        wait_until(lambda: len(list(self.folder.glob("hangs-*"))) == count)

    def is_clean(self) -> bool:
        """Neither half-written files nor locks."""
        store = self.outputs / "store"
        return not [*store.glob(".scratch/*"), *store.glob(".locks/*")]


def _environment(process: psutil.Process) -> str:
    try:
        return process.environ().get("MARK", "")
    except psutil.Error:
        return ""


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ends(said: str) -> dict[str, tuple[str, str]]:
    """Status of every job by sparsity, and what its line says after it or, for one that failed, its cause in full."""
    lines = re.findall(r"^job \d+ \(\d+ of \d+\) .* ([\d.]+)(?:, .*)?: (\w+) after (.*)$", said, re.MULTILINE)
    causes = re.findall(r"^(\w+): pruner=magnitude sparsity=(\S+): (.*)$", said, re.MULTILINE)
    told = {sparsity: (status, rest) for sparsity, status, rest in lines}
    return told | {sparsity: (status, cause) for status, sparsity, cause in causes}


@pytest.fixture
def command(tmp_path) -> Iterator[Command]:
    given = Command(tmp_path)
    yield given
    for process in given.processes():
        process.kill()


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Iterator[tuple[Command, tuple[int, str, str]]]:
    """A sweep in which most jobs fail, the last one on a disk that it has filled: a small one, if one can be had."""
    command = Command(tmp_path_factory.mktemp("broken"))
    with small_disk(command.outputs, "32m"):
        yield command, command.run("-m", "sparsity=0.1,0.12,0.14,0.16,0.18,0.2,0.22,0.5,0.9,0.6")
    assert command.processes() == []


@pytest.mark.rotated("jobs that fail")
def test_every_way_to_fail_is_told_and_the_others_finish(broken):
    command, (status, out, err) = broken
    assert status == 1
    full = os.path.ismount(command.outputs)
    told = ends(err + out)
    causes = {
        "0.1": ("failed", r"KeyError: 'no such key'"),
        "0.12": ("failed", r"SystemExit: 3"),
        "0.14": ("failed", r"killed by SIGKILL after \d+ s; it used 0\.\d of the machine's [\d.]+ GiB"),
        "0.16": ("failed", r"killed by SIGSEGV after \d+ s, a crash in compiled code"),
        "0.18": ("failed", r"its process exited with status 7 after \d+ s"),
        "0.2": ("failed", r"MemoryError"),
        "0.22": ("interrupted", r"stopped by SIGTERM"),
        "0.5": ("ok", r"^\d+ s"),
        "0.9": ("failed", r"No space left on device|the disk is full"),
        "0.6": ("failed", r"the disk is full") if full else ("ok", r"^\d+ s"),
    }
    assert set(told) == set(causes)
    assert all(len(line) <= 80 for line in err.splitlines() if line.startswith("job "))
    for sparsity, (state, cause) in causes.items():
        assert told[sparsity][0] == state
        assert re.search(cause, told[sparsity][1]), told[sparsity]
    # What has no room in the line of a job is said at the end.
    assert not full or re.search(r"the disk is full: .*No space left on device", out)
    assert re.search(rf"^10 jobs: {1 if full else 2} ok, {8 if full else 7} failed, 1 interrupted$", out, re.MULTILINE)
    assert re.search(
        r"^failed: pruner=magnitude sparsity=0.1: KeyError: 'no such key' \(in .*, line \d+\)$", out, re.MULTILINE
    )
    assert "Run the same command again to compute only what is missing." in out
    assert "Logging error" not in err


@pytest.mark.rotated("jobs that fail")
def test_what_a_killed_job_was_is_kept_with_its_cause(broken):
    command, _ = broken
    kept = {record.sparsity: record for record in load_records(command.outputs / "jobs")}
    assert {kept[sparsity].status for sparsity in ("0.14", "0.16", "0.18")} == {"failed"}
    assert "SIGKILL" in kept["0.14"].error
    assert kept["0.22"].status == "interrupted"
    assert command.outcomes()["0.14"].error == kept["0.14"].error


@pytest.mark.rotated("jobs that fail")
def test_the_same_command_repeats_only_what_failed_side_by_side(broken):
    """One more job is killed while others run beside it, and done alone at the end."""
    command, _ = broken
    (command.folder / "healthy").touch()
    (command.outputs / "filler").unlink(missing_ok=True)
    status, out, err = command.run("-m", *SIDE_BY_SIDE, "sparsity=0.1,0.12,0.14,0.3,0.16,0.18,0.2,0.22,0.5,0.9,0.6")
    assert status == 0, out + err
    assert "11 jobs: 11 ok" in out
    told = ends(err + out)
    found = {sparsity for sparsity, (_, how) in told.items() if how.endswith(", all found")}
    assert found == ({"0.5"} if os.path.ismount(command.outputs) else {"0.5", "0.6"})
    assert {sparsity for sparsity, record in command.outcomes().items() if record.built == []} == found
    assert {sparsity for sparsity, (_, how) in told.items() if "second try, alone" in how} == {"0.3"}
    assert command.is_clean()


@pytest.mark.rotated("jobs that are stopped")
def test_a_stopped_sweep_ends_cleanly_and_tells_how_far_it_came(command):
    process = command.start("-m", *SIDE_BY_SIDE, "sparsity=0.5,0.4,0.42,0.6", "wandb.mode=offline")
    command.hanging(2)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: {record.status for record in command.outcomes().values()} == {"ok", "interrupted"})
    # Asked again while the table is made.
    process.send_signal(signal.SIGTERM)
    status, out, err = ended(process)
    assert status == 143
    states = {"0.5": "ok", "0.4": "interrupted", "0.42": "interrupted", "0.6": "skipped"}
    assert {sparsity: state for sparsity, (state, _) in ends(err + out).items()} == states
    assert "4 jobs: 1 ok, 2 interrupted, 1 skipped" in out
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    assert command.is_clean()
    wait_until(lambda: command.processes() == [])
    assert command.outcomes()["0.4"].error == "stopped by SIGTERM"


@pytest.mark.rotated("jobs that are stopped")
def test_with_a_killed_sweep_its_jobs_end_too(command):
    process = command.start("-m", "sparsity=0.4,0.5", "wandb.mode=offline")
    command.hanging(1)
    # The sweep, what it forks from, the job, what tracks it.
    assert len(command.processes()) > 3
    process.kill()
    process.communicate(timeout=SECONDS)
    wait_until(lambda: command.processes() == [])
    assert command.is_clean()
    assert {sparsity: record.status for sparsity, record in command.outcomes().items()} == {"0.4": "interrupted"}


@pytest.mark.rotated("jobs that are stopped")
def test_a_single_job_is_stopped_cleanly(command):
    process = command.start("sparsity=0.4")
    command.hanging(1)
    process.send_signal(signal.SIGUSR1)
    status, _, err = ended(process)
    assert status == 128 + signal.SIGUSR1
    assert "Traceback" not in err
    assert command.is_clean()
    assert command.outcomes()["0.4"].status == "interrupted"
    wait_until(lambda: command.processes() == [])


# --- in this process -------------------------------------------------------------------------------------------


def test_a_second_signal_does_not_disturb_the_unwinding(monkeypatch):
    before = [signal.getsignal(number) for number in SIGNALS]
    unwound = False
    monkeypatch.setattr("pipeline.common.stopping._heard", float("-inf"))
    with pytest.raises(Stopped) as stop, stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.01)
            unwound = True
    assert unwound
    assert (stop.value.signal, stop.value.status, str(stop.value)) == (signal.SIGTERM, 143, "stopped by SIGTERM")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_can_be_noted_only(monkeypatch):
    monkeypatch.setattr("pipeline.common.stopping._heard", float("-inf"))
    with stoppable(), noticing() as notice:
        assert notice.signal is None
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.signal == signal.SIGUSR1


def test_output_that_cannot_be_written_stops_nothing(capsys):
    with Path("/dev/full").open("w", encoding="utf-8", buffering=1) as full:
        stream = Tolerant(full)
        for _ in range(3):
            print("a line", file=stream, flush=True)
        assert capsys.readouterr().err.count("cannot write to standard output any more: ") == 1
        with suppress(OSError):
            full.close()


def test_launchers_on_the_command_line():
    assert launcher_problems(["pruner=wanda", "hydra/launcher=local", "hydra.launcher.jobs=null"]) == []
    assert launcher_problems(["hydra.launcher.grace_seconds=5"]) == []
    assert "did you mean sequential?" in launcher_problems(["hydra/launcher=sequentail"])[0]
    assert "choose from" in launcher_problems(["hydra/launcher=elsewhere"])[0]
    assert "did you mean memory?" in launcher_problems(["hydra/launcher=local", "hydra.launcher.memroy=1"])[0]
    assert "not a key of hydra/launcher=sequential" in launcher_problems(["hydra.launcher.jobs=2"])[0]
    for bad in ("jobs=0", "jobs=two", "jobs=true", "memory=0", "memory=90", "memory=[1", "grace_seconds=-1"):
        (problem,) = launcher_problems(["hydra/launcher=local", f"hydra.launcher.{bad}"])
        assert "should be" in problem


def test_several_values_of_a_launchers_key_are_refused_and_one_text_with_a_comma_is_taken():
    slurm = "hydra/launcher=slurm"
    (problem,) = launcher_problems([slurm, "hydra.launcher.partition=a,b"])
    assert problem.endswith("""write 'hydra.launcher.partition="a,b"'""")
    assert launcher_problems([slurm, 'hydra.launcher.partition="a,b"']) == []


def test_memory_is_that_of_the_narrowest_group(tmp_path, monkeypatch):
    machine = memory()
    assert 0 < machine.available <= machine.total
    group = tmp_path / "groups" / "slice" / "job"
    group.mkdir(parents=True)
    (group.parent / "memory.stat").write_text("anon 5\ninactive_file 100\n")
    (group.parent / "memory.max").write_text("1000\n")
    (group.parent / "memory.current").write_text("700\n")
    (group / "memory.stat").write_text("inactive_file 0\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1\n")
    mine = tmp_path / "mine"
    mine.write_text("0::/slice/job\n")
    monkeypatch.setattr("pipeline.run.launchers.memory._CGROUPS", tmp_path / "groups")
    monkeypatch.setattr("pipeline.run.launchers.memory._MINE", mine)
    assert memory() == Memory(1000, 400)
