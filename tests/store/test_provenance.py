"""Where results come from, and what they took."""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
import sys
import threading
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pipeline.store import provenance
from pipeline.store.provenance import Meter, origin

MUCH = 300 << 20
GIB = 2**30


@pytest.fixture
def fresh_origin(monkeypatch):
    """``origin`` asks anew, and again after the test."""
    origin.cache_clear()
    yield origin
    monkeypatch.undo()
    origin.cache_clear()


def fill(seconds: float = 0.0) -> None:
    """Hold ``MUCH`` bytes for a moment, straight from the system: what is free in this process counts as held."""
    with mmap.mmap(-1, MUCH) as memory:
        memory[:: mmap.PAGESIZE] = bytes(MUCH // mmap.PAGESIZE)
        time.sleep(seconds)


# --- origin ------------------------------------------------------------------------------------------------------


def test_origin_is_plain_and_needs_no_torch():
    script = (
        "import json, sys; from pipeline.store.provenance import origin\n"
        "print(json.dumps([origin(), 'torch' in sys.modules, origin() is origin()]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    facts, imported, same = json.loads(done.stdout)
    assert (imported, same) == (False, True)
    assert set(facts["packages"]) >= {"torch", "transformers", "lm-eval", "numpy", "pandas", "tokenizers"}
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["cores"] >= 1
    assert facts["memory_gib"] > 0
    assert isinstance(facts["gpus"], list)


def test_origin_names_the_environment_that_matters_alone(fresh_origin, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("HF_TOKEN", "something private")
    named = fresh_origin()["environment"]
    assert (named["OMP_NUM_THREADS"], named["SLURM_JOB_ID"]) == ("3", "77")
    assert not {"CUDA_VISIBLE_DEVICES", "HF_TOKEN"} & set(named)
    assert fresh_origin()["threads"] == 1  # torch is loaded in the tests, with one thread


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_and_whether_code_differs_from_it(fresh_origin, monkeypatch, tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def seen() -> tuple[str | None, bool | None]:
        origin.cache_clear()
        return fresh_origin()["commit"], fresh_origin()["dirty"]

    monkeypatch.setattr(provenance, "_REPOSITORY", tmp_path)
    for folder in ("pipeline", "conf", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("1")
    assert seen() == (None, None)
    git("init")
    assert seen() == (None, None)
    git("add", ".")
    git("commit", "-m", "first")
    # The variables of a hook that runs the pipeline are about another repository.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    commit = git_commit(tmp_path)
    assert seen() == (commit, False)
    (tmp_path / "tests" / "a.txt").write_text("2")
    assert seen() == (commit, False)
    (tmp_path / "pipeline" / "new_pruner.py").write_text("")
    assert seen() == (commit, True)


def git_commit(folder: Path) -> str:
    return (folder / ".git" / (folder / ".git" / "HEAD").read_text().split()[1]).read_text().strip()


def test_a_git_that_hangs_or_fails_is_no_obstacle(fresh_origin, monkeypatch, tmp_path):
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(provenance, "_REPOSITORY", tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(provenance, "_COMMAND_SECONDS", 0.2)
    before = time.monotonic()
    assert fresh_origin()["commit"] is None
    assert time.monotonic() - before < 30


# --- meter -------------------------------------------------------------------------------------------------------


def test_nested_meters_know_their_own_peaks_and_those_inside():
    with Meter() as outer:
        with Meter() as large:
            fill()
        with Meter() as small:
            sum(range(1000))
    assert large.cost["peak_gib"] > small.cost["peak_gib"] + 0.8 * MUCH / GIB
    assert outer.cost["peak_gib"] >= large.cost["peak_gib"]
    assert outer.cost["seconds"] >= large.cost["seconds"] + small.cost["seconds"] - 0.002
    assert outer.cost["cpu_seconds"] > 0


def test_what_an_outer_block_held_before_an_inner_one_counts():
    with Meter() as outer:
        fill()
        with Meter() as inner:
            pass
    assert outer.cost["peak_gib"] > inner.cost["peak_gib"] + 0.8 * MUCH / GIB


def test_without_a_mark_to_set_back_memory_is_sampled(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "_PROC", tmp_path / "none")
    with Meter() as outer:
        with Meter() as large:
            fill(seconds=0.5)
        with Meter() as small:
            pass
    assert large.cost["peak_gib"] > small.cost["peak_gib"] + 0.8 * MUCH / GIB
    assert outer.cost["peak_gib"] >= large.cost["peak_gib"]
    assert "meter" not in {thread.name for thread in threading.enumerate()}


def test_a_failing_block_is_measured_and_fails():
    meter = Meter()
    assert meter.cost == {}
    with pytest.raises(KeyboardInterrupt), meter:
        raise KeyboardInterrupt
    assert meter.cost["seconds"] >= 0
    json.dumps(meter.cost)


def test_energy_of_all_packages_over_a_counter_that_starts_again(monkeypatch, tmp_path):
    def counters(first: int, second: int) -> None:
        for name, value in (("intel-rapl:0", first), ("intel-rapl:1", second), ("intel-rapl:0:0", first)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "energy_uj").write_text(f"{value}\n")
            (tmp_path / name / "max_energy_range_uj").write_text("999999999\n")

    monkeypatch.setattr(provenance, "_POWERCAP", tmp_path)
    counters(900_000_000, 10_000_000)
    with Meter() as meter:
        counters(100_000_000, 40_000_000)
    assert meter.cost["energy_joules"] == 230.0
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("not for you")
    with Meter() as meter:
        pass
    assert meter.cost["energy_joules"] is None


def test_gpus_in_use_tell_memory_and_energy(monkeypatch):
    # The work is on the second of two GPUs; what torch keeps is a high-water mark of each.
    memory, millijoules = [0, 1 << 30], {"first": 1000, "second": 5000}
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        max_memory_allocated=memory.__getitem__,
        reset_peak_memory_stats=lambda i: memory.__setitem__(i, 0),
        get_device_properties=lambda i: SimpleNamespace(uuid=("12-ab", "34-cd")[i]),
    )
    driver = ModuleType("pynvml")
    driver.__spec__ = ModuleSpec("pynvml", None)
    driver.__dict__.update(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID={"GPU-12-ab": "first", "GPU-34-cd": "second"}.__getitem__,
        nvmlDeviceGetTotalEnergyConsumption=millijoules.__getitem__,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    with Meter() as outer:
        with Meter() as inner:
            memory[1] = 2 << 30
            millijoules.update(first=2000, second=8000)
        with Meter() as last:
            memory[1] = max(memory[1], 1 << 29)
    assert [meter.cost["gpu_peak_gib"] for meter in (outer, inner, last)] == [2.0, 2.0, 0.5]
    assert [meter.cost["gpu_energy_joules"] for meter in (outer, inner, last)] == [4.0, 4.0, 0.0]
