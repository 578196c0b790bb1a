"""Words of the command line, as Hydra's users write them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from forked import run_forked
from own_configuration import own_folder

from pipeline.check.hydra_settings import PROGRAM
from pipeline.config.search_path import folders, search_also
from pipeline.run.arguments import read


@pytest.fixture(autouse=True)
def _alone():
    yield
    search_also([])


def test_an_experiment_is_chosen_with_and_without_a_plus():
    plain, plus = read(["-m", "experiment=fig03", "seed=1"]), read(["-m", "+experiment=fig03", "seed=1"])
    assert plus == plain
    assert any(word.startswith("pruner=") for word in plain.overrides)


def test_what_only_prints_is_left_as_it_is():
    # A sweep written out would be refused by --cfg.
    given = read(["--cfg", "job", "experiment=fig03"])
    assert given.shows
    assert given.words == ("--cfg", "job", "experiment=fig03")


@pytest.mark.parametrize("spelling", ["--config-dir {}", "--config-dir={}", "-cd {}", "hydra.searchpath=[{}]"])
def test_a_folder_of_ones_own_is_given_in_hydras_ways(spelling, tmp_path):
    conf = own_folder(tmp_path) / "conf"
    given = read(["-m", *spelling.format(conf).split(" "), "+experiment=own"])
    assert given.problems == ()
    assert folders()[1:] == (conf,)
    # All ways reach Hydra as one, so that jobs in other processes find the folder too.
    assert f'hydra.searchpath=["file://{conf}"]' in given.words
    assert "pruner=last_blocks,magnitude" in given.overrides


def test_problems_with_the_folder_are_told_with_the_others(tmp_path):
    given = read(["--config-dir", str(tmp_path / "nowhere"), "--no-such-flag"])
    assert len(given.problems) == 2


def test_a_dry_run_is_no_word_for_hydra():
    given = read(["--dry-run", "-m", "seed=1,2"])
    assert given.dry_run
    assert given.words == ("-m", "seed=1,2")


@pytest.mark.parametrize("words", [("--hydra-help",), ("--cfg", "job", "--resolve", "model=random")])
def test_what_only_prints_ends_well(words):
    done = run_forked(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("words", [("--resolve",), ("--resolve", "-m", "seed=1,2"), ("--package", "pruner")])
def test_a_flag_that_belongs_to_another_is_refused_in_a_sentence(words):
    done = run_forked(*words)
    assert done.returncode == 2
    assert f"{words[0]} belongs to --cfg" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--cfg", "job", "-m", "seed=1,2"), "--multirun and --cfg do not go together"),
        (("--cfg", "job", "pruner=wnda"), "did you mean wanda?"),
        (("--cfg", "job", "task.limt=1"), "did you mean task.limit?"),
    ],
)
def test_what_cannot_be_shown_is_refused_like_what_cannot_be_run(words, expected):
    done = run_forked(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_words_of_the_module_cannot_be_completed_and_those_of_the_command_can(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/pipeline/main.py", "-sc", "install=bash"])
    (problem,) = read(sys.argv[1:]).problems
    assert problem == f'words are completed after the installed command: eval "$({PROGRAM} -sc install=bash)"'
    monkeypatch.setattr(sys, "argv", [f"/somewhere/bin/{PROGRAM}", "-sc", "install=bash"])
    assert read(sys.argv[1:]).problems == ()


def test_a_shell_completes_words_after_the_installed_command(tmp_path):
    program = tmp_path / PROGRAM
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom pipeline.run.command import main\nsys.exit(main())\n")
    program.chmod(0o755)
    typed = f"{PROGRAM} model=random pruner=sparsegpt_"
    lines = [
        f'eval "$({PROGRAM} -sc install=bash)"',
        f'COMP_LINE="{typed}"; COMP_POINT=${{#COMP_LINE}}; COMP_CWORD=2',
        'hydra_bash_completion && echo "${COMPREPLY[@]}"',
    ]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.split() == ["pruner=sparsegpt_divergence"], done.stderr
