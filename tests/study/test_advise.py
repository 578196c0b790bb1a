"""The advice from command line to table and figure: recipes, refusals, what is measured and what is predicted."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from conftest import TINY
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis_profiles import chosen

from pipeline.check.command_line import problems
from pipeline.common.stopping import Stopped, stoppable
from pipeline.config.choices import CONF
from pipeline.config.sparsity import parse
from pipeline.evaluate.by_harness import evaluate
from pipeline.evaluate.suites.by_name import LmEvalSuite
from pipeline.model.sources.random import RandomModel
from pipeline.prune.settings import Settings
from pipeline.run.compose import resolve
from pipeline.run.job import run_job
from pipeline.store.artifacts import Store
from pipeline.store.records import OK
from pipeline.study import advise
from pipeline.study.advice import forecast
from pipeline.study.advice.jobs import Refused, run_jobs
from pipeline.study.advice.question import EVALUATION, read_question
from pipeline.study.advice.recipe import read_recipe, write_recipe

KEEP = 0.9


# --- what is left to be run --------------------------------------------------------------------------------------

LETTERS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)


@given(st.lists(LETTERS | st.integers() | st.booleans(), max_size=3))
@example(["true", "null", "it's", "a\\'b", "c\\\\", "2", "1e3", "d, e", "[f]", "²", "${g}"])
@chosen(2)
def test_lists_of_a_recipe_are_read_as_they_were_meant(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "recipe.yaml"
    path.write_text(yaml.safe_dump({"probes": values}, allow_unicode=True))
    (word,) = read_recipe(path)
    assert OverridesParser.create().parse_override(word).value() == values


def test_words_come_back_from_a_recipe(tmp_path):
    words = ["model=hf", "model.path=a/b c", "sparsity=0.10", "task.limit=null", "stages=[prune, evaluate]", "seed=3"]
    words += ["dtype=float32", "figures.select=[fig01,tab1]", "wandb.project='1 2'", "calibration.packing=true"]
    write_recipe(tmp_path / "recipe.yaml", words, "two\nlines")
    assert (tmp_path / "recipe.yaml").read_text().startswith("# two\n# lines\nmodel: hf\n")
    assert read_recipe(tmp_path / "recipe.yaml") == words


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("a: [", "is not valid YAML"),
        ("[a, b]", "one key: value per line"),
        ("task: {limit: 8}", "group.key"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, capsys, content, said):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)
    assert advise.main([f"run={path}"]) == 2
    assert said in capsys.readouterr().err


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["keep=1.5"], "keep=1.5 should be a number above 0 and at most 1"),
        (["keep=much"], "keep=much should be a number"),
        (["tasks=generativ"], "tasks=generativ does not exist; did you mean generative?"),
        (["evaluations=0"], "evaluations=0 should be a whole number of at least 1"),
        (["pruners=[wnda,wanda]"], "pruners: wnda does not exist; did you mean wanda?"),
        (["pruners=[awq]"], "pruners: awq takes no sparsity"),
        (["pruners=[]"], "pruners is empty; choose from"),
        (["sparsity=0.4"], "sparsity cannot be set here; each pruner is tried"),
        (["pruner=wanda"], "pruner cannot be set here; give pruners=[...]"),
        (["stages=[prune]"], "stages cannot be set here"),
        (["task.predict_only=true"], "task.predict_only cannot be set here; it compares scores"),
        (["task.num_fewshot=1", "task.shots=2"], "are two spellings of one key"),
        (["experiment=fig01"], "run it with pipeline.main"),
        (["-m"], "unknown flag -m; use --help"),
        (["seed=1,2"], "seed lists several values"),
        (["model=smolm2"], "model=smolm2 does not exist; did you mean smollm2?"),
        (["task.limt=3"], "task.limt is not a key of task=matched; did you mean task.limit?"),
        (["task=retrieval"], "task=retrieval has no generative tasks"),
        (["task=matchd"], "task=matchd does not exist; did you mean matched?"),
        (["hydra/launcher=locl"], "did you mean local"),
        (["model=minilm", "tasks=retrieval"], "model=minilm is an encoder"),
        (["model.layers=1", "pruners=[shortgpt]"], "removes all 1 blocks"),
        (["run=a.yaml", "keep=0.9"], "keep=0.9: cannot be combined with run="),
    ],
)  # fmt: skip
def test_a_bad_command_line_is_refused_before_anything_is_run(tmp_path, capsys, words, said):
    def never(_: Sequence[str]) -> int:
        raise AssertionError("a job was run")

    given_words = words if any(word.startswith(("model=", "run=")) for word in words) else ["model=random", *words]
    assert advise.main([*given_words, f"outputs={tmp_path / 'outputs'}"], never) == 2
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown
    assert not (tmp_path / "outputs").exists()


def test_help_and_refusals_come_before_anything_heavy_and_drawing_never_needs_it():
    code = """
import sys
from pipeline.study import advise
assert advise.main(["--help"]) == 0
assert advise.main(["keep=2"]) == 2
from pipeline.study.advice import answer, figure, ladder
sys.exit(any(name in sys.modules for name in ("torch", "transformers", "lm_eval")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("keep", "tasks", "pruners", "evaluations", "generative, choice, retrieval, all", "recommended.yaml"):
        assert word in done.stdout


# --- from the command line to a table ------------------------------------------------------------------------------

LAYERS = 6
ITEMS = """
import random

import datasets

LABELS = {labels}
DRAW = random.Random(0)
ROWS = [
    {{"question": f"Word {{place}} is", "options": DRAW.sample(["an owl", "a frog", "a crab", "a moth"], 4)}}
    for place in range({count})
]


def rows(**_):
    made = [row | {{"label": LABELS.get(row["question"], 0)}} for row in ROWS]
    return datasets.DatasetDict({{"test": datasets.Dataset.from_list(made)}})
"""
TASK = """
task: words
output_type: multiple_choice
custom_dataset: !function words.rows
test_split: test
fewshot_split: test
doc_to_text: "{{question}}"
doc_to_choice: options
doc_to_target: label
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def suite_folder(folder: Path, labels: dict[str, int]) -> Path:
    folder.mkdir()
    (folder / "words.py").write_text(ITEMS.format(labels=labels, count=32))
    (folder / "words.yaml").write_text(TASK)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    """Multiple choice whose right answers are those that the dense model gives: it has everything to lose."""
    place = tmp_path_factory.mktemp("tasks")
    source, store = RandomModel(name="random", layers=LAYERS), Store(place / "store")
    blank = str(suite_folder(place / "blank", {}))
    asked = LmEvalSuite(name="mine", names=["words"], include=blank, allow_code_execution=True)
    found = evaluate(source.load(torch.float32, store), source.tokenizer(store), asked, seed=0)
    labels = {sample["prompt"]: sample["options"].index(sample["completion"]) for sample in found.samples}
    return suite_folder(place / "own", labels)


PRUNERS = ("attn_drop", "mlp_drop", "shortgpt")


@cache
def composed(words: tuple[str, ...]) -> Settings:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("config", overrides=list(words)))


class InProcess:
    """Carries out sweeps one job after another in this process, and counts the jobs. Pruners may be left out."""

    def __init__(self, folder: Path, broken: Sequence[str] = ()) -> None:
        self.folder, self.broken, self.jobs, self.evaluated = folder, broken, 0, 0

    def __call__(self, words: Sequence[str]) -> int:
        given_words = dict(word.split("=", 1) for word in words if word != "-m")
        pruners, sparsities = (given_words.pop(key).split(",") for key in ("pruner", "sparsity"))
        status = 0
        for pruner, sparsity in itertools.product(pruners, sparsities):
            if pruner in self.broken:
                status = 1
                continue
            words = (*(f"{key}={value}" for key, value in given_words.items()), f"pruner={pruner}")
            settings = replace(composed(words), sparsity=parse(sparsity))
            self.jobs += 1
            self.evaluated += "evaluate" in settings.stages
            (self.folder / str(self.jobs)).mkdir(parents=True)
            status |= run_job(settings, "test", self.folder / str(self.jobs)).status != OK
        return int(status)


def words_of(task: Path, outputs: Path) -> list[str]:
    """A tiny question: three pruners of whole units with three sparsities each."""
    base = [word for word in TINY if not word.startswith(("task.", "stages", "figures", "calibration", "perplexity"))]
    outputs.parent.mkdir(parents=True, exist_ok=True)
    (outputs.parent / "probes.txt").write_text("One day\nThe sea\n")
    own = ["task=lm_eval", "task.names=[words]", f"task.include={task}", "allow_code_execution=true", "dtype=float32"]
    own += ["calibration=news", "calibration.sequences=2", "calibration.length=16", f"model.layers={LAYERS}"]
    own += [f"probes={outputs.parent / 'probes.txt'}", "perplexity.tokens=null", f"outputs={outputs}"]
    return [*base, *own, "tasks=choice", f"pruners=[{','.join(PRUNERS)}]", "evaluations=2", "keep=0.5"]


@pytest.fixture(scope="module")
def advised(task, tmp_path_factory):
    """The question's words, its outputs, who ran the jobs, what was printed, and the exit status."""
    place = tmp_path_factory.mktemp("advised")
    words, runner = words_of(task, place / "outputs"), InProcess(place / "runs")
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *texts, **_: printed.append(" ".join(map(str, texts))))
        status = advise.main(words, runner)
    return words, place / "outputs", runner, "\n".join(printed), status


def drawn(outputs: Path) -> pd.DataFrame:
    return pd.read_csv(outputs / "advice" / "random-llama" / "advice.csv")


@pytest.mark.rotated("advice")
def test_every_pruner_gets_a_few_scores_and_predictions_for_the_others(advised):
    _, outputs, runner, printed, status = advised
    assert status == 0, printed
    data = drawn(outputs)
    assert set(data.pruner) == set(PRUNERS) and set(data.kind) == {"multiple_choice"}
    measured, predicted = (data[data.source == source] for source in ("measured", "predicted"))
    assert (measured.groupby("pruner").size() <= 2).all() and len(measured) >= 3
    assert runner.jobs == 1 + 9 + len(measured) and runner.evaluated == 1 + len(measured)
    assert len(predicted) == 9 and predicted.sparsity.isin([1, 2, 3]).all()
    assert (data.low_percent <= data.kept_percent).all() and (data.kept_percent <= data.high_percent).all()


@pytest.mark.rotated("advice")
def test_measured_shares_are_those_of_the_comparisons(advised):
    outputs = advised[1]
    rows = drawn(outputs).query("source == 'measured'")
    table = pd.read_parquet(outputs / "tables" / "comparisons.parquet").query("task == 'mean'")
    keys = zip(rows.pruner, rows.sparsity.astype(str), strict=True)
    for (pruner, sparsity), row in zip(keys, rows.itertuples(), strict=True):
        (own,) = table[(table.pruner == pruner) & (table.sparsity == sparsity)].itertuples()
        limits = [100 * own.retained, 100 * own.retained_low, 100 * own.retained_high]
        assert [row.kept_percent, row.low_percent, row.high_percent] == pytest.approx(limits)
    jobs = pd.read_parquet(outputs / "tables" / "jobs.parquet").set_index(["pruner", "sparsity"])
    for row in rows.itertuples():
        job = jobs.loc[(row.pruner, str(row.sparsity))]
        assert row.removed == job.dense_parameters - job.parameters > 0


@pytest.mark.rotated("advice")
def test_a_second_call_runs_nothing_and_says_the_same_whatever_else_was_asked_since(advised, capsys):
    words, outputs, runner, _, _ = advised
    question, _ = read_question(words)
    few = [*question.words("lm_eval", ["attn_drop"], ["3"], EVALUATION), "task.limit=4"]
    assert runner(few) == 0
    files = {path: path.read_bytes() for path in (outputs / "advice").rglob("*") if path.is_file()}
    assert {path.name for path in files} >= {"advice.csv", "advice.png"}
    before = runner.jobs
    assert advise.main(words, runner) == 0
    assert runner.jobs == before
    assert {path: path.read_bytes() for path in (outputs / "advice").rglob("*") if path.is_file()} == files
    shown = capsys.readouterr().out
    for word in (*PRUNERS, "attention sublayers", "MLP sublayers", "blocks", "measured", "advice.png"):
        assert word in shown


@dataclass
class Told:
    """What is read of tables."""

    jobs: pd.DataFrame
    comparisons: pd.DataFrame


def test_other_options_of_a_pruner_are_other_settings(monkeypatch, tmp_path):
    """The folder holds the same pruner at the same sparsity with a lazy search, which nobody asked about."""
    rows = pd.DataFrame({"pruner": "divergence", "sparsity": "4", "options": ["", "lazy"], "kl": [0.1, 0.5]})
    predicted = rows.assign(task="mean", kind="generative", predicted=1 - rows["kl"], low=0.2, high=1.0)
    told = Told(rows.assign(job=["asked", "other"]), pd.DataFrame())
    monkeypatch.setattr(forecast, "load", lambda *_: told)
    monkeypatch.setattr(forecast, "features", lambda _: rows)
    monkeypatch.setattr(forecast, "targets", lambda _: rows.assign(family="divergence"))
    found = SimpleNamespace(predict=predicted.merge)
    monkeypatch.setattr(forecast, "fit", lambda *_: found)
    one = forecast.forecast(tmp_path, [SimpleNamespace()], ["asked"])
    assert one.divergence == {("divergence", "4"): 0.1}
    assert one.kept["divergence", "4"]["generative"].value == pytest.approx(0.9)


@pytest.mark.rotated("advice")
def test_pruners_that_fail_do_not_end_the_advice(advised, tmp_path, capsys):
    words, outputs, _, _, _ = advised
    runner = InProcess(tmp_path / "runs", broken=["contiguous"])
    more = [word.replace("[attn_drop", "[contiguous,attn_drop") for word in words]
    assert advise.main(more, runner) == 1
    shown = capsys.readouterr()
    assert runner.jobs == 0, "all others are there"
    assert "unknown" in next(line for line in shown.out.splitlines() if "contiguous" in line and "blocks" in line)
    assert "failed: contiguous at 1, 2, 3: its job left no result" in shown.err
    assert set(drawn(outputs).pruner) == set(PRUNERS)


@pytest.mark.rotated("advice")
def test_what_is_recommended_runs_as_it_is(advised, tmp_path, monkeypatch):
    _, outputs, _, printed, _ = advised
    recipe = outputs / "advice" / "random-llama" / "recommended.yaml"
    said = yaml.safe_load(recipe.read_text())
    assert said["pruner"] in PRUNERS and said["sparsity"] in (1, 2, 3)
    assert f"Recommended: {said['pruner']} at {said['sparsity']} removes" in printed
    assert f"python -m pipeline.study.advise run={recipe} export.path=DIR" in printed
    # The command line that `pipeline.main` is given.
    monkeypatch.setattr(sys, "argv", ["advise"])
    monkeypatch.setattr("pipeline.run.command.main", lambda: 0)
    assert advise.main([f"run={recipe}", "seed=0"]) == 0
    words = sys.argv[1:]
    assert words[-1] == "seed=0" and problems(words, multirun=False) == []
    record = run_job(composed(tuple(words)), "recommended", tmp_path)
    assert (record.pruner, record.sparsity) == (said["pruner"], str(said["sparsity"]))
    assert record.status == OK and "comparison" in record.artifacts
    assert record.built == [], "it is what was measured, and found again"


@pytest.mark.rotated("advice")
def test_settings_that_were_evaluated_before_count(advised):
    words, outputs, runner, _, _ = advised
    # So much is asked for that the search would go on.
    assert advise.main([*words, "keep=1"], runner) == 0
    assert (drawn(outputs).query("source == 'measured'").groupby("pruner").size() <= 2).all()


def test_a_model_without_anything_to_lose_gets_no_advice(tmp_path, capsys):
    words = [*(word for word in TINY if not word.startswith(("stages", "figures"))), f"outputs={tmp_path / 'outputs'}"]
    runner = InProcess(tmp_path / "runs")
    assert advise.main([*words, "pruners=[magnitude]", "perplexity.tokens=null"], runner) == 1
    assert runner.jobs == 1, "nothing is pruned"
    assert "is not clearly above chance in generation" in capsys.readouterr().err


# --- running jobs --------------------------------------------------------------------------------------------------


def test_a_command_line_that_is_not_taken_ends_the_advice(capfd):
    with pytest.raises(Refused, match="pruner=nothing"):
        run_jobs(["pruner=nothing"])
    assert "pruner=nothing does not exist" in capfd.readouterr().err


def test_an_interrupted_sweep_is_ended_and_waited_for(tmp_path, monkeypatch):
    stub = tmp_path / "python"
    stub.write_text(
        f"#!/bin/sh\ntrap 'sleep 0.2; touch {tmp_path}/ended; exit 143' TERM\ntouch {tmp_path}/began\n"
        "while :; do sleep 0.05; done\n"
    )
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))

    def interrupt() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(Stopped), stoppable():
        run_jobs([])
    assert (tmp_path / "ended").exists()
