"""Task files from somebody else: data is asked, code runs only with leave, and what is no task is named."""

from __future__ import annotations

import os
import re
from pathlib import Path

import lm_eval
import pytest
from broken_models import ends, examples
from helpers import json_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate.harness import load_tasks
from pipeline.evaluate.suites.by_name import LmEvalSuite
from pipeline.evaluate.suites.included import code_in
from pipeline.evaluate.suites.names import runs_code
from pipeline.evaluate.task_errors import naming_tasks

LEAVE = "allow_code_execution=true"
PLAIN = """
task: sounds
output_type: generate_until
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
doc_to_text: "{text}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: {metric}, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "tasks"
    place.mkdir()
    (tmp_path / "rows.jsonl").write_bytes(json_lines({"question": "A cow says", "answer": "moo"}))
    # A trap for whatever is imported.
    (tmp_path / "trap.py").write_text(f"import os\nos.makedirs({str(tmp_path / 'sprung')!r}, exist_ok=True)\n")
    (place / "trap.py").write_text((tmp_path / "trap.py").read_text() + "def run(given, *_):\n    return given\n")
    return place


def write(folder: Path, extra: str = "", text: str = "{{question}}", metric: str = "exact_match") -> Path:
    path = folder / "sounds.yaml"
    path.write_text(PLAIN.format(rows=folder.parent / "rows.jsonl", text=text, metric=metric) + extra)
    return path


def suite(folder: Path, **options: object) -> LmEvalSuite:
    return LmEvalSuite("mine", names=["sounds"], include=str(folder), **options)


def refused(folder: Path) -> str:
    """Why a folder of tasks is refused, by the check and by the job; nothing in it ran."""
    mine = suite(folder)
    with pytest.raises(ValueError) as caught:
        load_tasks(mine, 0)
    assert mine.problems(), str(caught.value)
    assert not (folder.parent / "sprung").exists()
    return mine.problems()[-1]


def test_a_folder_of_data_is_asked_without_leave(folder):
    write(folder)
    assert suite(folder).problems() == []
    assert list(load_tasks(suite(folder), 0).tasks) == ["sounds"]
    assert not (folder.parent / "sprung").exists()


SPELLINGS = {
    "as usual": "process_docs: !function trap.run\n",
    "in full": "process_docs: !<!function> trap.run\n",
    "escaped": "process_docs: !%66unction trap.run\n",
    "nested": "filter_list: [{filter: [{function: custom, filter_fn: !function trap.run}]}]\n",
    "by an alias": "metadata: {of: &it !function trap.run}\nprocess_docs: *it\n",
    "merged": "metadata: &all {process_docs: !function trap.run}\n<<: *all\n",
    "an object": "process_docs: !!python/name:os.system ''\n",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_functions_run_only_with_leave_however_they_are_spelled(folder, spelling):
    write(folder, SPELLINGS[spelling])
    problem = refused(folder)
    assert "sounds.yaml" in problem and LEAVE in problem and "\n" not in problem


def test_functions_run_with_leave(folder):
    write(folder, SPELLINGS["as usual"])
    mine = suite(folder, allow_code_execution=True)
    assert mine.problems() == []
    load_tasks(mine, 0)
    assert (folder.parent / "sprung").exists()
    assert mine.identity() == suite(folder).identity(), "leave changes no result"


def test_what_the_functions_do_is_part_of_the_identity(folder):
    write(folder, SPELLINGS["as usual"])
    before = suite(folder).identity()
    (folder / "trap.py").write_text("def run(given, *_):\n    return given[:1]\n")
    assert suite(folder).identity() != before


@pytest.mark.parametrize("how", ["relative", "absolute", "listed", "behind a link"])
def test_functions_of_included_files_count_wherever_they_are(folder, how):
    other = folder.parent / "elsewhere" / "shared.yml"
    other.parent.mkdir()
    other.write_text("process_docs: !function trap.run\n")
    (other.parent / "trap.py").write_text((folder / "trap.py").read_text())
    if how == "behind a link":
        (other.parent / "sounds.yaml").write_text(write(folder).read_text() + "include: shared.yml\n")
        (folder / "sounds.yaml").unlink()
        (folder / "sounds.yaml").symlink_to(other.parent / "sounds.yaml")
        # What the name would mean beside the link.
        (folder / "shared.yml").write_text("metadata: {version: 1}\n")
    else:
        named = {"relative": "../elsewhere/shared.yml", "absolute": str(other), "listed": f"[{other}]"}[how]
        write(folder, f"include: {named}\n")
    assert "shared.yml (!function trap.run)" in refused(folder)


def test_functions_of_a_group_or_of_another_task_count(folder):
    write(folder)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "zoo.yaml").write_text(
        "group: zoo\ntask: [{task: sounds, process_docs: !function trap.run}]\n"
    )
    assert "zoo.yaml" in refused(folder)


def test_lm_evals_own_files_may_be_included(folder):
    own = Path(lm_eval.__file__).parent / "tasks" / "openbookqa" / "openbookqa.yaml"
    write(folder, f"include: {own}\n")
    assert suite(folder).problems() == []


@pytest.mark.parametrize("metric", ["TRAP", "TRAP/trap.py", "somebody/program"])
def test_metrics_that_are_programs_run_only_with_leave(folder, metric):
    write(folder, metric=metric.replace("TRAP", str(folder)))
    assert "metric: " in refused(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.makedirs('SPRUNG') }}",
        "{{ question.__class__ }}",
        "{% for x in [] %}",
        "{{ nothing }}",
    ],
)
def test_a_template_is_no_program(folder, template):
    write(folder, text=template.replace("SPRUNG", str(folder.parent / "sprung")))
    with pytest.raises(ValueError, match="one of its prompt templates cannot be rendered"):
        load_tasks(suite(folder), 0)
    assert not (folder.parent / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"[" * 9999, "is not valid YAML"),
        (b"task: [", "is not valid YAML"),
        (b"", "does not describe a task"),
        (b"- task", "does not describe a task"),
        (b"task: sounds\n---\ntask: other\n", "is not valid YAML"),
        (b"include: nowhere.yaml\n", "nowhere.yaml cannot be read"),
        (b"include: .\n", "it is a directory"),
    ],
)
def test_files_that_are_no_tasks_are_named(folder, content, expected):
    write(folder)
    (folder / "odd.yaml").write_bytes(content)
    problem = refused(folder)
    assert expected in problem and problem.startswith("task.include: ")


def test_pipes_and_loops_hold_nothing_up(folder):
    write(folder)
    os.mkfifo(folder / "pipe.yaml")
    assert ends(lambda: "it is a pipe" in refused(folder) or 1 / 0)
    (folder / "pipe.yaml").unlink()
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    assert ends(refused, folder)
    (folder / "loop.yaml").unlink()
    os.mkfifo(folder.parent / "pipe")
    write(folder, "include: ../pipe\n")
    assert ends(refused, folder)
    write(folder, "include: sounds.yaml\n")
    assert not runs_code(folder / "sounds.yaml")
    with pytest.raises(ValueError, match="task mine"):
        load_tasks(suite(folder), 0)


YAML = st.text(st.sampled_from("ab:-[]{}&*!<>|'\"#%@,? \n\t0~="), max_size=40).map(str.encode) | st.binary(max_size=40)


@settings(max_examples=examples(60), deadline=None)
@given(content=YAML)
def test_any_bytes_are_looked_through_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "any-tasks"
    folder.mkdir(exist_ok=True)
    (folder / "any.yaml").write_bytes(content)
    try:
        assert all("any.yaml" in place for place in code_in(folder))
    except ValueError as error:
        assert str(error).startswith("task.include: ") and "\n" not in str(error)


def test_data_of_ones_own_that_cannot_be_read_is_not_blamed_on_the_hub(folder):
    write(folder)
    (folder.parent / "rows.jsonl").unlink()
    with pytest.raises(ValueError, match="task sounds: its data cannot be read: .*rows.jsonl") as caught:
        load_tasks(suite(folder), 0)
    assert "hub" not in str(caught.value)


def test_more_examples_than_there_are_are_refused_with_both_numbers(folder):
    rows = [{"question": f"A cow says {n}", "answer": "moo"} for n in range(5)]
    (folder.parent / "rows.jsonl").write_bytes(json_lines(*rows))
    write(folder)
    assert load_tasks(suite(folder, shots=4), 0)
    with pytest.raises(ValueError, match=r"task sounds: task.shots=9 asks for more examples than the 5 available"):
        load_tasks(suite(folder, shots=9), 0)
    write(folder, "fewshot_split: test\n")
    with pytest.raises(ValueError, match="the 4 available besides the item itself"):
        load_tasks(suite(folder, shots=5), 0)


def test_a_mistake_in_a_function_or_in_a_row_is_told_with_the_task_and_the_line(folder):
    (folder / "own.py").write_text("def score(doc, results):\n    return {'exact_match': doc['gold']}\n")
    write(folder, "process_results: !function own.score\n")
    (task,) = load_tasks(suite(folder, allow_code_execution=True), 0).tasks.values()
    place = re.escape(str(folder / "own.py"))
    with (
        pytest.raises(ValueError, match=rf"^task sounds: KeyError: 'gold' \(in score, {place}, line 2\)$"),
        naming_tasks(),
    ):
        task.process_results(next(iter(task.eval_docs)), ["moo"])
    write(folder, "doc_to_choice: sounds\n".replace("sounds", "!function own.text"))
    (folder / "own.py").write_text("def text(doc):\n    return doc['sounds']\n")
    with pytest.raises(ValueError, match=rf"^task sounds: KeyError: 'sounds' \(in text, {place}, line 2\)$"):
        load_tasks(suite(folder, allow_code_execution=True), 0)
