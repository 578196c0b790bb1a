"""Whatever the command line says: a list of sentences before anything is loaded, and nothing outside of outputs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from conftest import TINY
from hydra import compose, initialize_config_dir
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis_profiles import chosen
from strategies_config import HYDRAS, ODD_VALUES, command_lines

from pipeline.check import command_line as check
from pipeline.check.command_line import problems
from pipeline.check.hydra_settings import flag_problems
from pipeline.check.launcher import launcher_problems
from pipeline.check.words import MOST_JOBS
from pipeline.config.choices import choices_of
from pipeline.config.schema import GROUPS, flatten
from pipeline.run.compose import resolve
from pipeline.run.job import run_job
from pipeline.store.records import OK

UNCHECKED = "cannot be checked"


def assert_sentences(found: list[str]) -> None:
    assert all(isinstance(problem, str) and problem.strip() for problem in found)
    # Such a one is the last resort, for what none of the checks foresaw.
    assert not any(UNCHECKED in problem for problem in found), found


@chosen(1.6)
@given(command_lines(), st.booleans())
@example(["seed=\udc80"], False)
@example(["+model.max_memory._target_=os.system"], False)
@example(["sparsity=shuffle(range(0,1000000000))", "seed=range(0,1000000000)"], True)
@example(["model=random,hf", "model.path=\x00"], True)
def test_any_words_are_checked_without_crashing(words, multirun):
    assert_sentences([*launcher_problems(words), *problems(words, multirun), *flag_problems(words)])


@st.composite
def one_value(draw: st.DrawFn) -> list[str]:
    """A key of one choice with an odd value, and the choice."""
    group = draw(st.sampled_from(GROUPS))
    # Unknown names are looked up in lm-eval's own index, which takes seconds.
    choice = draw(st.sampled_from([name for name in choices_of(group) if name not in ("lm_eval", "paper")]))
    with initialize_config_dir(str(check.CONF), version_base="1.3"):
        cfg = check.compose("config", overrides=[f"{group}={choice}"])
    keys = [key for key in flatten(dict(check.OmegaConf.to_container(cfg))) if not key.endswith("_")]
    return [f"{group}={choice}", f"{draw(st.sampled_from(keys))}={draw(st.sampled_from(ODD_VALUES))}"]


@example(["pruner=joint_drop", "pruner.unit=1e309"])
@chosen(1.6)
@given(one_value())
def test_any_value_of_any_key_is_checked_without_crashing(words):
    assert_sentences(problems(words, multirun=False))


@pytest.mark.parametrize(
    "key", [key for key in HYDRAS if key not in ("hydra.verbose", "hydra/launcher", "hydra.searchpath")]
)
def test_hydras_own_settings_are_refused(key):
    words = [f"{key}=/tmp/elsewhere"]
    found = [*problems(words, multirun=False), *launcher_problems(words)]
    assert len(found) == 1
    assert key in found[0]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("hydra.run.dir=/tmp/x", "results go to outputs=DIR"),
        ("+hydra.sweep.dir=/tmp/x", "results go to outputs=DIR"),
        ("~hydra.callbacks", "cannot be set here"),
        ("hydra.mode=MULTIRUN", "give -m"),
        ("~hydra/launcher", "write plain hydra/launcher=VALUE"),
        ("hydra/launcher@x=local", "write plain hydra/launcher=VALUE"),
        ("hydra.verbose={a: 1}", "give true or the names of loggers"),
    ],
)
def test_hydras_settings_are_refused_with_the_way_out(word, expected):
    (problem,) = problems([word], multirun=False)
    assert expected in problem


def test_the_harmless_ones_can_be_set():
    for words in (["hydra.verbose=true"], ["hydra.verbose=[pipeline]"], ["hydra/launcher=local", "++seed=3"]):
        assert [*problems(words, multirun=True), *launcher_problems(words)] == []


@pytest.mark.parametrize("flag", ["--config-path=x", "--config-name=x", "-cn", "--multi"])
def test_flags_that_read_a_configuration_from_elsewhere_are_refused(flag):
    (problem,) = flag_problems(["-m", flag, "seed=1"])
    assert problem.startswith(f"unknown flag {flag.partition('=')[0]}; ")
    assert flag_problems(["--cfg", "job", "--resolve", "seed=-1"]) == []
    assert flag_problems(["--experimental-rerun=config.pickle"]) != []
    (problem,) = flag_problems(["--resolve", "seed=1"])
    assert problem.startswith("--resolve belongs to --cfg or --help; write --cfg job --resolve")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["+seed=1"], "write it without the +"),
        (["+pruner=wanda"], "write pruner=CHOICE, without +"),
        (["seed=4294967296"], "a whole number from 0 to 4294967295"),
        (["allow_code_execution=2"], "should be true or false"),
        (["sweep={pruner: [wanda]}"], "list the values of a key"),
        (["pruner.name=dense"], "is the name of another choice in conf/"),
        (["pruner.name=../x"], "should consist of letters"),
        (["model=hf", "model.path=x/y", "model.name='a\tb'"], "contains the character"),
        (["wandb.project=a/b"], "wandb.project='a/b' contains one of"),
        (["wandb.id=a:b"], "wandb.id='a:b' contains one of"),
        (["wandb.tags=[" + "x" * 65 + "]"], "has 65 characters, more than 64"),
        (["wandb.artifacts=weights"], "wandb.artifacts=weights does not exist"),
        (["capture.temperature=1e-320"], "a number from 0.001 to 1000"),
        (["capture.steps=1000000000"], "a whole number from 1 to 10000"),
        (["model=random", "model.hidden=63"], "a multiple of twice model.heads=4"),
        (["model=random", "model.layers=100000"], "a whole number from 1 to 1000"),
        (["model.package=..", "model.file=x"], "is not the name of a Python package"),
        (["model.file=../x"], "is not inside the package"),
        (["task.families=[{_target_: os.getcwd}]"], "contains the key _target_"),
        (["model=random", "model.embedding={query_prefix: {_target_: os.getcwd}}"], "contains the key _target_"),
        (["seed=" + "1" * 11_000], "write at most 10000"),
        (["figures.select=" + "[" * 30], "nested too deeply"),
    ],
)
def test_what_hydra_would_stumble_over_is_refused(words, expected):
    assert any(expected in problem for problem in problems(words, multirun=False))


def test_a_sweep_has_a_limit_and_draws_once():
    words = ["seed=range(0,101)", "calibration.seed=range(0,101)"]
    assert problems(words, multirun=True) == [f"the sweep has 10201 jobs, more than {MOST_JOBS}; split it into several"]
    (problem,) = problems(["figures.select=[fig01],[fig02]"], multirun=True)
    assert "draws its figures once" in problem
    (problem,) = problems(["seed=range(0,1000000000)"], multirun=True)
    assert "list the values of a sweep, separated" in problem


def test_a_value_never_calls_what_it_names(tmp_path):
    """Hydra would call it while the job's parts are made, also where the value is spelled as a text."""
    mark = tmp_path / "mark"
    call = f"{{_target_: os.mkdir, path: {mark}}}"
    for value in (call, f"${{oc.decode:'{call}'}}", f"${{oc.create:{call}}}"):
        assert problems(["model=random", f"model.embedding={value}"], multirun=False) != []
    assert not mark.exists()


NUMBERS = st.integers(-2, 2**33)
RUNNING = st.one_of(
    st.tuples(
        st.sampled_from(
            ["seed", "model.seed", "calibration.seed", "calibration.batch_size", "task.limit", "model.layers"]
        ),
        st.one_of(NUMBERS, st.integers(1, 8)),
    ).map("{0[0]}={0[1]}".format),
    st.tuples(
        st.sampled_from(["model.hidden", "model.heads", "calibration.sequences", "calibration.length"]), NUMBERS
    ).map("{0[0]}={0[1]}".format),
    st.one_of(st.floats(0, 1), st.integers(0, 5), st.sampled_from(["2:4", "3:7", "1:64", "63:64"])).map(
        "sparsity={}".format
    ),
    st.sampled_from([f"pruner={name}" for name in choices_of("pruner")]),
    st.sampled_from([f"model.architecture={name}" for name in ("opt", "gpt2", "phi", "gemma2")]),
)


@chosen(0.4)
@given(st.lists(RUNNING, min_size=1, max_size=3, unique_by=lambda word: word.partition("=")[0]))
def test_what_is_not_refused_runs_or_fails_in_a_sentence(tmp_path_factory, words):
    """Pruning alone, since it comes first and takes least."""
    outputs = tmp_path_factory.mktemp("outputs")
    # What a user gives comes in the place of what is small enough here.
    given_keys = [word.partition("=")[0] for word in words]
    small = [word for word in TINY if word.partition("=")[0] not in given_keys]
    words = [*small, "stages=[prune]", "perplexity.tokens=null", f"outputs={outputs}", *words]
    words = [word for word in words if not word.startswith("perplexity.") or word == "perplexity.tokens=null"]
    if problems(words, multirun=False):
        return
    with initialize_config_dir(str(check.CONF), version_base="1.3"):
        record = run_job(resolve(compose("config", overrides=words)), "sweep", outputs / "runs")
    assert record.status == OK or not re.match(r"\w+(Error|Exception): ", record.error or ""), (words, record.error)
    shutil.rmtree(outputs)


def test_the_command_itself_refuses_in_sentences(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipeline.main",
            "model=random",
            f"hydra.run.dir={tmp_path}/x",
            f"export.path={tmp_path}/\udc80",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "2 problems" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
