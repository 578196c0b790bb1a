"""Sweeps on a real Slurm cluster of one node: jobs that are killed, cancelled and put back into the queue."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TINY
from slurm_cluster import Cluster, NoSlurm, cluster
from test_launchers import FAULTS, ended, ends, wait_until

from pipeline.run.job import run_job
from pipeline.run.launchers.slurm import SUBMITTED
from pipeline.run.launchers.slurm_queue import GONE, State, cause_of, facts_of, seconds_of, states_of
from pipeline.store.records import OUTCOME, JobRecord, load_records

DEFAULTS = (
    "hydra/launcher=slurm",
    "hydra.launcher.timeout_min=30",
    "hydra.launcher.cpus_per_task=1",
    "stages=[prune]",
    "pruner=magnitude",
)
# A job that is long enough to be interrupted between two of its blocks.
LONG = ("pruner=sparsegpt", "sparsity=0.5", "model.layers=24", "calibration.sequences=64", "calibration.length=128")
# What becomes of each job of the first sweep: it kills itself, ends well, is cancelled, comes to its time limit.
SPARSITIES = KILLED, WELL, CANCELLED, LATE = "0.14", "0.5", "0.4", "0.42"


@dataclass
class Sweep:
    """A command on the cluster, with a `magnitude` that fails as the file of faults says."""

    cluster: Cluster
    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.outputs = self.folder / "outputs"

    def start(self, *arguments: str) -> None:
        environment = self.cluster.environment | {"OMP_NUM_THREADS": "1", "FAULTS": str(self.folder)}
        environment |= {"PYTHONPATH": str(FAULTS), "FAULTS_OUTPUTS": str(self.outputs)}
        given = (*TINY, *DEFAULTS, f"outputs={self.outputs}", *arguments)
        # Each key once: the last one counts.
        settings = dict(argument.split("=", 1) for argument in given)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.main", "-m", *(f"{key}={value}" for key, value in settings.items())],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            # A shell that starts the tests in the background has them ignore Ctrl-C, and what they start as well.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def end(self) -> None:
        self.status, self.out, self.err = ended(self.process)

    def id(self) -> str:
        """In Slurm, of the array, once it is there."""
        wait_until(lambda: self._scripts() or self.process.poll() is not None)
        (script,) = self._scripts()
        return script.name.partition("_")[0]

    def _scripts(self) -> list[Path]:
        return list(self.outputs.glob(f"runs/*/{SUBMITTED}/*_submission.sh"))

    def outcomes(self) -> dict[str, JobRecord]:
        return {record.sparsity: record for record in load_records(self.outputs / "runs", f"**/{OUTCOME}")}

    def has_ended(self, *sparsities: str) -> bool:
        outcomes = self.outcomes()
        return all(name in outcomes and outcomes[name].status != "interrupted" for name in sparsities)

    def is_clean(self) -> bool:
        """Neither half-written files nor locks."""
        store = self.outputs / "store"
        return not [*store.glob(".scratch/*"), *store.glob(".locks/*")]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with ExitStack() as stack:
        try:
            given = stack.enter_context(cluster(cpus=6))
        except NoSlurm as reason:
            pytest.skip(str(reason))
        yield given
    assert given.processes() == []


@pytest.fixture(scope="module")
def sweeps(slurm, tmp_path_factory) -> tuple[Sweep, Sweep, dict[str, int]]:
    """A sweep of four jobs, and one of a single job that is told to stop after some blocks: with the files it had then.

    Both run at the same time.
    """
    folder = tmp_path_factory.mktemp("slurm")
    several, single = Sweep(slurm, folder / "several"), Sweep(slurm, folder / "single")
    several.start(
        f"sparsity={','.join(SPARSITIES)}", "hydra.launcher.timeout_min=10", "hydra.launcher.max_num_timeout=0"
    )
    single.start(*LONG)
    kept = _interrupt(single)
    wait_until(lambda: len(list(several.folder.glob("hangs-*"))) == 2 and several.has_ended(WELL))
    ids = {name: f"{several.id()}_{number}" for number, name in enumerate(SPARSITIES)}
    slurm.ask("scancel", ids[CANCELLED])
    slurm.ask("scancel", "--signal=USR1", ids[LATE])
    several.end()
    single.end()
    return several, single, kept


def _interrupt(single: Sweep) -> dict[str, int]:
    unfinished = single.outputs / "store" / ".unfinished"
    wait_until(lambda: list(unfinished.glob("*/block-002.safetensors")))
    single.cluster.ask("scancel", "--signal=USR1", single.id())
    wait_until(lambda: "0.5" in single.outcomes() and single.outcomes()["0.5"].error)
    assert single.outcomes()["0.5"].error == "stopped by SIGUSR1"
    kept = {path.name: path.stat().st_ino for path in unfinished.glob("*/block-*.safetensors")}
    single.cluster.start_again(single.id())
    return kept


@pytest.mark.rotated("Slurm")
def test_every_end_of_a_job_is_told_with_its_cause(sweeps):
    several, _, _ = sweeps
    assert several.status == 1
    assert "4 jobs: 1 ok, 3 failed" in several.out
    told = ends(several.err + several.out)
    causes = {
        KILLED: ("failed", "killed by SIGKILL (job "),
        WELL: ("ok", ""),
        CANCELLED: ("failed", "cancelled in Slurm (job "),
        LATE: ("failed", "stopped by SIGUSR1, and could not be requeued: "),
    }
    assert set(told) == set(causes)
    kept = {record.sparsity: record for record in load_records(several.outputs / "jobs")}
    for sparsity, (status, cause) in causes.items():
        assert told[sparsity][0] == kept[sparsity].status == several.outcomes()[sparsity].status == status
        assert told[sparsity][1].startswith(cause)
        assert kept[sparsity].error is None or kept[sparsity].error.startswith(cause)
    assert "timed-out too many times" in kept[LATE].error
    assert several.is_clean()


@pytest.mark.rotated("Slurm")
def test_the_command_tells_how_far_the_jobs_are(sweeps):
    several, _, _ = sweeps
    assert re.search(
        r"^Slurm \d+: submitted; the jobs outlive this command, `scancel \d+` cancels them", several.err, re.MULTILINE
    )
    assert re.search(r"^Slurm \d+: \d pending.*, [234] running, [012] done$", several.err, re.MULTILINE)
    assert re.search(r"^job 1 \(\d of 4\) .*: ok after ", several.err, re.MULTILINE)
    assert re.search(r"^Slurm \d+: 0 pending, 0 running, 4 done$", several.err, re.MULTILINE)
    assert "Traceback" not in several.err


@pytest.mark.rotated("Slurm")
def test_a_job_that_is_put_back_into_the_queue_goes_on_where_it_was(sweeps, make_settings, tmp_path):
    _, single, kept = sweeps
    assert single.status == 0, single.out + single.err
    assert "Restarts=1" in single.cluster.ask("scontrol", "show", "job", single.id())
    assert ends(single.err)["0.5"][0] == "ok"
    (decision,) = (single.outputs / "store" / "decision").iterdir()
    assert 3 <= len(kept) < 24
    assert all((decision / name).stat().st_ino == inode for name, inode in kept.items())
    # What an undisturbed run finds.
    record = run_job(make_settings("stages=[prune]", *LONG), "undisturbed", tmp_path)
    undisturbed = tmp_path / "outputs" / record.artifacts["decision"]
    assert undisturbed.name == decision.name
    assert _checksums(undisturbed) == _checksums(decision)


def _checksums(artifact: Path) -> dict[str, object]:
    files = json.loads((artifact / "manifest.json").read_text())["files"]
    assert len(files) > 24
    return files


@pytest.mark.rotated("Slurm")
def test_jobs_go_on_without_the_command(slurm, tmp_path):
    sweep = Sweep(slurm, tmp_path / "left")
    # More than the partition allows: they stay in the queue.
    sweep.start("sparsity=0.5,0.6", "hydra.launcher.timeout_min=100")
    wait_until(lambda: slurm.states().get(f"{sweep.id()}_1") == "PENDING")
    sweep.process.send_signal(signal.SIGINT)
    sweep.end()
    assert sweep.status == 130
    assert f"the jobs keep running in Slurm: `squeue --jobs={sweep.id()}` lists them" in sweep.err
    assert {state for state, _ in ends(sweep.out).values()} == {"skipped"}
    assert f"continues in Slurm as {sweep.id()}_1" in sweep.out
    assert [slurm.states()[f"{sweep.id()}_{number}"] for number in range(2)] == ["PENDING", "PENDING"]
    slurm.ask("scancel", sweep.id())


@pytest.mark.rotated("Slurm")
def test_what_slurm_refuses_is_one_sentence(slurm, tmp_path):
    sweep = Sweep(slurm, tmp_path / "refused")
    sweep.start("sparsity=0.5,0.6", "hydra.launcher.partition=nowhere")
    sweep.end()
    assert sweep.status == 1
    assert re.fullmatch(
        r"the jobs could not be run: Slurm rejected the jobs: invalid partition specified: nowhere .*\n", sweep.err
    )
    assert sweep.out == ""


def test_without_slurm_there_is_a_way_out(tmp_path):
    command = [sys.executable, "-m", "pipeline.main", "-m", *TINY, "hydra/launcher=slurm", f"outputs={tmp_path}"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PATH": str(tmp_path)}, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"the jobs could not be run: .* \(not found: sbatch, .*\): .*hydra/launcher=local\n", done.stderr
    )


# --- what Slurm says, with programs that say it ----------------------------------------------------------------


@pytest.fixture
def says(tmp_path, monkeypatch) -> Callable[..., None]:
    """``says("squeue", out="...")`` puts a program of that name on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(program: str, out: str = "", err: str = "", status: int = 0) -> None:
        lines = [
            "#!/bin/sh",
            f"printf '%s' {shlex.quote(out)}",
            f"printf '%s' {shlex.quote(err)} >&2",
            f"exit {status}",
        ]
        (tmp_path / program).write_text("\n".join(lines))
        (tmp_path / program).chmod(0o755)

    return write


UNKNOWN = "slurm_load_jobs error: Invalid job id specified"


def test_states_come_from_the_queue_and_from_accounting_once_it_has_forgotten(says):
    says("squeue", "12_0|RUNNING|None\n12_1|PENDING|Resources\n")
    says("sacct", "12_2|CANCELLED by 1000\n12_0|PENDING\n")
    found = states_of(["12_0", "12_1", "12_2", "12_3"])
    assert found == {
        "12_0": State("RUNNING", "None"),
        "12_1": State("PENDING", "Resources"),
        "12_2": State("CANCELLED"),
        "12_3": State(GONE),
    }
    assert [(state.waits, state.over) for state in found.values()] == [
        (False, False),
        (True, False),
        (False, True),
        (False, True),
    ]


def test_a_forgotten_job_is_gone_where_there_is_no_accounting(says):
    says("squeue", err=UNKNOWN, status=1)
    says("sacct", err="Slurm accounting storage is disabled", status=1)
    assert states_of(["12"]) == {"12": State(GONE)}
    assert "no longer known to Slurm" in cause_of(State(GONE), facts_of("12"))


def test_a_controller_that_does_not_answer_says_nothing_about_the_jobs(says):
    assert states_of(["12"]) is None
    says("squeue", err="slurm_load_jobs error: Unable to contact slurm controller", status=1)
    says("sacct", "12|FAILED\n")
    assert states_of(["12"]) is None


@pytest.mark.parametrize(
    ("state", "code", "cause"),
    [
        ("FAILED", "137:0", "killed by SIGKILL"),
        ("FAILED", "0:11", "killed by SIGSEGV"),
        ("FAILED", "1:0", "its process exited with status 1 without writing a record"),
        ("COMPLETED", "0:0", "its process exited with status 0 without writing a record"),
        ("OUT_OF_MEMORY", "0:125", "killed for running out of memory: raise hydra.launcher.mem_gb"),
        ("TIMEOUT", "0:15", "reached its time limit: raise hydra.launcher.timeout_min"),
    ],
)
def test_causes_are_told_with_and_without_the_controller(says, state, code, cause):
    says("scontrol", f"JobId=12 ArrayJobId=12 JobState={state} Reason=None ExitCode={code} RunTime=1-00:01:05\n")
    facts = facts_of("12")
    assert cause_of(State(state), facts) == cause
    assert seconds_of(facts) == 86465
    says("scontrol", err=UNKNOWN, status=1)
    says("sacct", f"{state}|{code}|00:01:05\n")
    facts = facts_of("12")
    assert cause_of(State(state), facts) == cause
    assert seconds_of(facts) == 65
