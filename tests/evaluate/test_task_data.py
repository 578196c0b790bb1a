"""The data of tasks belong to their identity: whatever file is edited, and whatever rows come from elsewhere."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers import json_lines

from pipeline.evaluate.by_harness import evaluate
from pipeline.evaluate.comparison import compare
from pipeline.evaluate.harness import load_tasks
from pipeline.evaluate.perplexity import HeldOutText
from pipeline.evaluate.suites.by_name import LmEvalSuite
from pipeline.evaluate.suites.retrieval import RetrievalSuite

ROWS = [{"word": word, "capital": word.upper()} for word in ("ape", "bee", "cat", "dog", "eel", "fox")]
OTHER = [*ROWS[:5], {"word": "fox", "capital": "FOG"}]
TASK = """
task: caps
dataset_path: json
dataset_kwargs: {files}
test_split: test
doc_to_text: "{{{{word}}}}:"
doc_to_target: " {{{{capital}}}}"
output_type: loglikelihood
metric_list: [{{metric: acc}}]
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    (tmp_path / "tasks").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def write(place: Path, files: str = "{data_files: {test: ../data/caps.jsonl}}", extra: str = "") -> LmEvalSuite:
    (place / "tasks" / "caps.yaml").write_text(TASK.format(files=files) + extra)
    return LmEvalSuite("mine", names=["caps"], include=str(place / "tasks"))


def put(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json_lines(*rows))


BELOW, APART = "tasks/caps.jsonl", "data/caps.jsonl"
SPELLINGS = {
    "a text": (APART, "{data_files: ../data/caps.jsonl}"),
    "an absolute path": (APART, "{data_files: {test: PLACE/data/caps.jsonl}}"),
    "a list": (APART, "{data_files: [../data/caps.jsonl]}"),
    "lists by split": (APART, "{data_files: {test: [../data/caps.jsonl]}}"),
    "a pattern": (APART, "{data_files: {test: '../data/*.jsonl'}}"),
    "a deep pattern": ("data/of/caps.jsonl", "{data_files: {test: '../data/**/*.jsonl'}}"),
    "a folder": (APART, "{data_dir: ../data}"),
    "an alias": (APART, "&all {data_files: {test: ../data/caps.jsonl}}\nmetadata: *all"),
    "a folder of the name of the data": (APART, "{}\ndataset_path: ../data"),
    "a link": (APART, "{data_files: {test: ../link.jsonl}}"),
    "a keyword of a function": (APART, "{rows: ../data/caps.jsonl}"),
    "beside the task": (BELOW, "{data_files: {test: ../tasks/caps.jsonl}}"),
    "a name that its program knows": (BELOW, "{}"),
    "deeper below": ("tasks/more/caps.jsonl", "{}"),
    "a prompt": ("tasks/prompt.txt", "{}"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_files_of_data_are_part_of_the_identity(place, spelling):
    name, files = SPELLINGS[spelling]
    put(place / name, *ROWS)
    if spelling == "a link":
        (place / "link.jsonl").symlink_to(place / name)
    suite = write(place, files.replace("PLACE", str(place)))
    before, conditions = suite.identity(), suite.conditions()
    assert suite.identity() == before
    put(place / name, *OTHER)
    assert suite.identity() != before, "a label was changed"
    assert suite.conditions() != conditions
    put(place / name, *ROWS[:3])
    assert suite.identity() != before, "half of the rows are gone"
    put(place / name, *ROWS)
    assert suite.identity() == before, "the same rows are the same data, whenever they were written"


def words_of(suite: LmEvalSuite) -> list[str]:
    return [row["capital"] for row in load_tasks(suite, 0).tasks["caps"].test_docs()]


@pytest.mark.parametrize(
    "files",
    ["{data_files: {test: rows/test.jsonl}}", "{data_files: {test: ['rows/*.jsonl']}}", "{data_dir: rows}"],
    ids=["a file", "a pattern", "a folder"],
)
def test_relative_data_start_from_the_task_file_then_from_the_working_directory(place, files):
    put(place / "tasks" / "rows" / "test.jsonl", *ROWS)
    put(place / "work" / "rows" / "test.jsonl", *OTHER)
    suite = write(place, files)
    assert words_of(suite) == [row["capital"] for row in ROWS]
    before = suite.identity()
    put(place / "work" / "rows" / "test.jsonl", *OTHER[:2])
    shutil.rmtree(place / "tasks" / "rows")
    assert suite.identity() != before
    assert words_of(suite) == [row["capital"] for row in OTHER[:2]]


def test_files_that_change_places_are_other_data(place):
    for folder, rows in (("a", ROWS), ("b", OTHER)):
        put(place / "tasks" / folder / "caps.jsonl", *rows)
    suite = write(place)
    before = suite.identity()
    for folder, rows in (("b", ROWS), ("a", OTHER)):
        put(place / "tasks" / folder / "caps.jsonl", *rows)
    assert suite.identity() != before


def test_an_edit_that_leaves_size_and_second_as_they_were_is_seen(place):
    put(place / BELOW, *ROWS)
    suite, status = write(place), (place / BELOW).stat()
    before = suite.identity()
    put(place / BELOW, *OTHER)
    assert (place / BELOW).stat().st_size == status.st_size
    os.utime(place / BELOW, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert suite.identity() != before


def test_programs_beside_an_included_file_count_wherever_it_is(place):
    other = place / "elsewhere"
    other.mkdir()
    (other / "shared.yaml").write_text("process_docs: !function parts.run\n")
    (other / "parts.py").write_text("from words import run\n")
    (other / "words.py").write_text("def run(docs):\n    return docs\n")
    suite = write(place, extra="include: ../elsewhere/shared.yaml\n")
    before = suite.identity()
    (other / "words.py").write_text("def run(docs):\n    return docs.select(range(2))\n")
    assert suite.identity() != before


def test_the_same_folder_elsewhere_is_the_same(place):
    put(place / BELOW, *ROWS)
    before = write(place, "{}").identity()
    shutil.copytree(place / "tasks", place / "copy")
    moved = LmEvalSuite("mine", names=["caps"], include=str(place / "copy")).identity()
    assert moved["include"] == before["include"]


def test_what_running_makes_is_no_data(place):
    suite = write(place)
    before = suite.identity()
    for made in ("__pycache__/parts.pyc", ".git/index", "outputs/store/x", "outputs/jobs/y", "outputs/runs/main.log"):
        put(place / "tasks" / made, *ROWS)
    (place / "tasks" / "up").symlink_to(place / "tasks")
    assert suite.identity() == before


def test_the_identity_is_had_at_once_even_of_large_files(place):
    put(place / BELOW, *ROWS)
    (place / "tasks" / "large.bin").write_bytes(bytes(2**26))
    suite = write(place)
    suite.identity()
    start = time.perf_counter()
    suite.identity()
    assert time.perf_counter() - start < 0.2


def test_a_file_that_cannot_be_read_is_named(place, monkeypatch):
    put(place / BELOW, *ROWS)
    suite = write(place)

    def locked(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pipeline.evaluate.suites.included.known_digest", locked)
    assert any("cannot be read (Permission denied); fix it or remove it" in line for line in suite.problems())


def test_edited_rows_are_asked_again_in_the_same_process(place, make_model, tokenizer):
    put(place / APART, *ROWS)
    suite = write(place)
    first = evaluate(make_model(), tokenizer, suite, 0)
    put(place / APART, *ROWS[:3])
    second = evaluate(make_model(), tokenizer, suite, 0)
    assert (first.scores["n"].item(), second.scores["n"].item()) == (6, 3)
    assert first.scores["data"].item() != second.scores["data"].item()


def test_an_edited_task_file_is_read_again_in_the_same_process(place, make_model, tokenizer):
    put(place / APART, *ROWS)
    load_tasks(write(place), 0)
    suite = write(place, extra="description: 'Shout: '\n")
    assert evaluate(make_model(), tokenizer, suite, 0).samples[0]["prompt"].startswith("Shout: ")


def test_scores_tell_which_rows_were_asked(place, make_model, tokenizer):
    put(place / APART, *ROWS)

    def data(**options: object) -> str:
        asked = LmEvalSuite(**(vars(write(place)) | options))
        found = evaluate(make_model(), tokenizer, asked, 0).scores["data"].item()
        assert len(found) == 8 and int(found, 16) >= 0
        return found

    whole, some = data(), data(limit=3)
    assert whole == data() and some != whole
    put(place / APART, *OTHER)
    assert data() != whole and data(limit=3) == some, "the last row was not asked"
    # Examples come from all rows.
    with_examples = data(limit=3, shots=1)
    put(place / APART, *ROWS)
    assert data(limit=3, shots=1) != with_examples


def test_other_rows_are_not_compared():
    items = pd.DataFrame({"task": "caps", "kind": "generative", "item": range(6), "score": [1.0, 0, 1, 0, 1, 1]})
    scores = pd.DataFrame(
        [("caps", "generative", "acc", True, True, True, 0.0, "0a1b2c3d")],
        columns=["task", "kind", "metric", "main", "higher_is_better", "averaged", "chance", "data"],
    )
    assert len(compare(items, items, scores, scores)) == 2
    with pytest.raises(ValueError, match="task caps: the dense model was evaluated on other data"):
        compare(items, items, scores, scores.assign(data="ffffffff"))
    assert compare(items, items, scores.assign(averaged=False), scores.assign(averaged=False)).empty


def test_files_of_a_retrieval_set_count_by_content(place):
    put(place / "set" / "corpus.jsonl", {"_id": "d", "text": "a cow"}, {"_id": "e", "text": "a dog"})
    put(place / "set" / "queries.jsonl", {"_id": "q", "text": "moo"})
    (place / "set" / "qrels").mkdir()
    (place / "set" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    suite, path = RetrievalSuite("beir", sets=[str(place / "set")]), place / "set" / "corpus.jsonl"
    before, status = suite.identity(), path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert suite.identity() == before
    put(path, {"_id": "d", "text": "a cat"}, {"_id": "e", "text": "a dog"})
    assert suite.identity() != before


def test_equal_bytes_that_are_read_in_another_way_are_another_text(place):
    for name in ("words.txt", "words.jsonl"):
        put(place / name, {"text": "a b c"})
    first, second = (HeldOutText(str(place / name), "text", 8, 4, 2) for name in ("words.txt", "words.jsonl"))
    kinds = first.identity(), second.identity()
    assert {key for key in kinds[0] if kinds[0][key] != kinds[1][key]} == {"kind"}
