"""Examples on the page: items that dense solves and pruning breaks, with all answers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from figure_tables import MODEL, SETTINGS, fill, identified, save
from html_page import Element, read

from pipeline.evaluate.results import Results
from pipeline.report import write
from pipeline.store.artifacts import Store
from pipeline.store.records import OK, JobRecord

SETUPS = (("shortgpt", "0.4"), ("wanda", "0.4"))
# Scores of items 0 to 4 of one task: dense fails at 3; shortgpt usually fails, wanda usually does not.
GENERATED = {"dense0": (1, 1, 1, 0, 1), "shortgpt0.4": (0, 0, 0, 0, 1), "wanda0.4": (1, 0, 1, 0, 1)}
CHOSEN = {"dense0": (1, 1, 1, 1, 1), "shortgpt0.4": (1, 1, 1, 1, 1), "wanda0.4": (0, 1, 1, 1, 1)}


def items_of(job: str) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"task": "copying", "kind": kind, "item": range(5), "score": list(map(float, scores[job]))})
        for kind, scores in (("generative", GENERATED), ("multiple_choice", CHOSEN))
    ]
    return pd.concat(parts, ignore_index=True)


def samples_of(job: str) -> list[dict[str, object]]:
    start = "first lines\n" * 100
    return [
        row._asdict() | {"prompt": f"{start}question {row.item}", "completion": f" {job} says {row.item}", "gold": "G"}
        for row in items_of(job).itertuples(index=False)
    ]


def evaluated(outputs: Path) -> Path:
    fill(outputs, SETUPS)
    store, frames = Store(outputs), []
    (outputs / "jobs").mkdir()
    for pruner, sparsity in (("dense", "0"), *SETUPS):
        job = pruner + sparsity
        results = Results(pd.DataFrame(), pd.DataFrame(), samples_of(job))
        artifact = store.ensure("evaluation", {"job": job}, results.save)
        own = JobRecord(job, SETTINGS, MODEL, pruner, sparsity, status=OK)
        own.artifacts["evaluation"] = str(artifact.path.relative_to(store.root))
        own.write(outputs / "jobs" / f"{job}.json")
        frames.append(identified(items_of(job).assign(pruner=pruner, sparsity=sparsity)))
    return save(outputs, items=pd.concat(frames, ignore_index=True))


@pytest.fixture
def document(tmp_path: Path) -> Element:
    return read(write(evaluated(tmp_path), drawn=[]).read_text(encoding="utf-8"))


def test_texts_begin_with_a_typical_item_that_dense_solves_and_pruning_breaks(document: Element) -> None:
    first = document.by_id("texts").all("option")[0]
    assert first.text == "copying, item 0" and first.attributes["value"] == "example-1"
    example = document.by_id("example-1")
    assert example.all("blockquote")[0].text.startswith("…\nfirst lines")
    assert example.all("blockquote")[0].text.endswith("\nquestion 0")
    assert "right answer: G" in example.all("h3")[0].text
    columns = {one.all("h4")[0].text: one for one in example.with_class("text")}
    assert list(columns) == ["dense right", "shortgpt 0.4 wrong", "wanda 0.4 right"]
    column = columns["shortgpt 0.4 wrong"]
    assert column.all("p")[0].text == "shortgpt0.4 says 0"
    assert column.with_class("note")[0].text == "Asked as multiple choice: right."
    assert columns["wanda 0.4 right"].with_class("note")[0].text == "Asked as multiple choice: wrong."


def test_a_damaged_text_leaves_examples_out(tmp_path: Path) -> None:
    outputs = evaluated(tmp_path)
    for samples in outputs.glob("store/evaluation/*/samples.jsonl.gz"):
        samples.write_bytes(samples.read_bytes()[:-9])
    texts = read(write(outputs, drawn=[]).read_text(encoding="utf-8")).by_id("texts")
    assert texts.all("option")[0].text == "choice-1"
