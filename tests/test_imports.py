"""What commands import: libraries that take seconds are loaded only by those that use them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from conftest import DRAWN, TINY

# What loads models and asks tasks, what draws, and what reads results.
COMPUTES = ("transformers", "lm_eval", "datasets", "tokenizers", "accelerate", "evaluate", "sklearn")
DRAWS = ("matplotlib", "seaborn", "scipy.stats", "scipy.optimize")
READS = ("pandas", "pyarrow", "scipy", "PIL")
TRACKS = ("wandb", "requests")
READERS = (*COMPUTES, *DRAWS, *TRACKS, "torch", "hydra")
SCRIPT = (
    "import runpy, sys\n"
    "module, *sys.argv[1:] = sys.argv[1:]\n"
    "try: runpy.run_module(module, run_name='__main__')\n"
    "except SystemExit as stop: assert not stop.code, stop.code\n"
    "print('loaded:', *sys.modules)\n"
)


def loaded(module: str, *arguments: str) -> set[str]:
    """Names of all modules in a process that has run a module as a command, to its good end."""
    command = [sys.executable, "-c", SCRIPT, module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """Arguments of a job that has run."""
    outputs = tmp_path_factory.mktemp("imports") / "outputs"
    job = (*TINY, DRAWN, "pruner=wanda", "sparsity=0.5", f"outputs={outputs}")
    found = loaded("pipeline.main", *job)
    assert "transformers" in found
    # Tasks without programs need no metrics of that library.
    assert "evaluate" not in found
    # Beside a job that computes, another process draws.
    assert len(os.sched_getaffinity(0)) == 1 or not found & set(DRAWS[:2])
    return job


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        ("pipeline.main --help", (*READERS[:-1], *READS)),
        ("pipeline.main --cfg job", (*READERS[:-1], *READS)),
        ("pipeline.plot --help", READERS),
        ("pipeline.report --help", READERS),
        ("pipeline.results --help", (*READERS, *READS)),
        ("pipeline.inspect --help", (*READERS, *READS)),
        ("pipeline.track.sync --help", (*READERS, *READS)),
        ("pipeline.run.job", (*COMPUTES, *DRAWS, *TRACKS)),
        ("pipeline.run.launchers.preload", (*COMPUTES, *DRAWS)),
    ],
)
def test_commands_load_nothing_that_they_do_not_use(command: str, absent: Sequence[str]) -> None:
    assert not loaded(*command.split()) & set(absent)


def test_a_job_that_finds_everything_loads_neither_models_nor_tasks_nor_drawing(job: Sequence[str]) -> None:
    assert not loaded("pipeline.main", *job) & {*COMPUTES, *DRAWS, *TRACKS}
    assert not loaded("pipeline.main", "--dry-run", *job) & {*COMPUTES, *DRAWS, *TRACKS}


def test_results_are_read_without_what_draws_while_nothing_has_changed(job: Sequence[str]) -> None:
    own = [word for word in job if word.startswith("outputs=")]
    for command in ("pipeline.report figures.select=[fig01]", "pipeline.results", "pipeline.run.summary"):
        assert not loaded(*command.split(), *own) & set(READERS)
