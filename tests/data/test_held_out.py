"""Prompts that a pruner is calibrated on are neither probes nor test items, and a job that mixes them is refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import chain

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.probes import PROBES
from pipeline.data.calibration.held_out import leaked
from pipeline.data.calibration.near_duplicates import near_duplicates
from pipeline.data.calibration.shots import Shots
from pipeline.data.calibration.trajectories import Trajectories
from pipeline.data.matched.data import read_items
from pipeline.data.matched.suite import FAMILIES
from pipeline.evaluate import overlap
from pipeline.prune.stage import continued_of
from pipeline.run.job import run_job

TESTED = [row["prompt"] for family in FAMILIES for row in read_items(family) if row["split"] == "test"]
TRIAL = ("pruner=divergence", "sparsity=1", "calibration=trajectories", "calibration.batch_size=2")
words = st.text("abcdefgh", min_size=1, max_size=6)


@given(st.lists(words, min_size=3, max_size=40), st.lists(words, max_size=5), st.lists(words, max_size=5))
def test_a_question_is_found_wherever_it_stands_and_however_it_is_set(question, before, after):
    asked = ",  ".join(question).upper()
    prompt = " ".join([*before, *question, *after])
    assert leaked(["something else", prompt], [asked]) is not None
    assert leaked([prompt.replace(question[0], "")], ["zzz yyy xxx " + "www " * len(question)]) is None


def test_an_empty_question_is_nowhere():
    assert leaked(["a prompt"], ["", " \n", "->"]) is None


@pytest.mark.parametrize("prefix", ["Q: ", "Question 7) ", "Please answer. ", "Text before\n", "  > "])
def test_no_prefix_hides_an_item(prefix):
    assert near_duplicates([f"{prefix}{item}" for item in TESTED], TESTED) == TESTED


def test_a_changed_word_hides_no_long_item_and_a_common_phrase_makes_none():
    rng = random.Random(0)
    text = [f"w{rng.randrange(10_000)}" for _ in range(2000)]
    for length in (16, 40, 200):
        item = text[300 : 300 + length]
        assert near_duplicates([" ".join(text)], [" ".join(item)])
        changed = [*item[: length // 2], "another", *item[length // 2 + 1 :]]
        assert near_duplicates([" ".join(text)], [" ".join(changed)])
        strange = [f"v{rng.randrange(10_000)}" for _ in range(length)]
        phrase = [*strange[: length - length // 4], *item[: length // 4]]
        assert near_duplicates([" ".join(text)], [" ".join(phrase)]) == []
    # Two words alone are no item within a line, where counting goes on.
    assert near_duplicates(["41 42 43 44"], ["43 44"]) == [] and near_duplicates(["Q: 43 44"], ["43 44"])
    assert near_duplicates(["The house is not cold"], ["The house is cold ->"]) == []


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("今天天气很好。法国的首都是哪座城市？请回答。", "法国的首都是哪座城市？"),
        ("次の文を読んでください。フランスの首都はどこですか。", "フランスの首都はどこですか"),
        ("ก่อนอื่น เมืองหลวงของฝรั่งเศสคือเมืองอะไร ตอบ", "เมืองหลวงของฝรั่งเศสคือเมืองอะไร"),
        ("问题。巴黎", "巴黎"),
    ],
)
def test_an_item_is_found_in_text_without_spaces(text, item):
    assert near_duplicates([text], [item]) == [item]
    assert near_duplicates([text], [item[::-1]]) == []


def test_built_in_prompts_are_held_out():
    asked = [*TESTED, *(probe.text for probe in PROBES)]
    assert len(asked) > 500
    for source in (Trajectories("trajectories", sequences=92), Shots("shots", sequences=48)):
        assert leaked(source.prompts(), asked) is None


def test_shots_are_training_examples_in_the_form_of_the_task():
    prompts = Shots("shots", families=["antonyms"], sequences=4).prompts()
    examples = [row for row in read_items("antonyms") if row["split"] == "fewshot"]
    for prompt, row in zip(prompts, examples, strict=False):
        assert prompt.endswith("\n\n" + row["prompt"])
        others = [f"{other['prompt']} {other['answer']}" for other in examples if other is not row]
        assert prompt.split("\n\n")[:-1] == others
    assert len(prompts) == 4
    assert len(Shots("shots", families=["antonyms"]).prompts()) == len(examples)  # sequences is no more than a limit


def test_families_take_turns():
    prompts = Shots("shots", families=["antonyms", "plurals"], sequences=4).prompts()
    assert ["Opposites" in prompt for prompt in prompts] == [True, False, True, False]
    with pytest.raises(ValueError, match="synonyms does not exist; did you mean antonyms"):
        Shots("shots", families=["synonyms"]).prompts()


@pytest.mark.parametrize(
    ("prompt", "stage", "what"),
    [
        (PROBES[4].text, "capture", "a probe prompt"),
        (PROBES[4].text, "measure", "a probe prompt"),
        (f"Answer:\n{TESTED[0]}", "evaluate", "an item of the tasks"),
        (f"Q: {TESTED[0]}", "evaluate", "an item of the tasks"),
    ],
)
def test_a_job_that_mixes_them_is_refused_before_any_work(make_settings, tmp_path, prompt, stage, what):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(text.replace("\n", "\\n") for text in ("One.", "Two.", "Three.", prompt)))
    given = (*TRIAL, f"calibration.path={path}", "calibration.sequences=4", "task.families=[copying]")
    folder = tmp_path / "run"
    folder.mkdir()
    record = run_job(make_settings(*given, f"stages=[prune,{stage}]"), "run", folder)
    assert record.status == "failed"
    assert f"calibration=trajectories continues {what}" in record.error
    assert "decision" not in record.artifacts
    held_out = run_job(make_settings(*given, "stages=[prune]"), "run", folder)
    assert held_out.status == "ok", held_out.error


def test_too_few_prompts_are_refused_with_the_number():
    with pytest.raises(ValueError, match=r"calibration\.sequences=100, but there are only 92 prompts"):
        Trajectories("trajectories", sequences=100).prompts()


def test_prompts_come_from_text_and_from_json_lines(tmp_path):
    text, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    text.write_text("One\\ntwo\n\nThree\n")
    lines.write_text('{"text": "One\\ntwo"}\n{"text": "Three"}\n')
    pd.DataFrame({"text": ["One\ntwo", "", "Three"]}).to_parquet(tmp_path / "p.parquet")
    for path in (text, lines, tmp_path / "p.parquet"):
        assert list(chain(Trajectories("t", path=str(path), sequences=2).prompts())) == ["One\ntwo", "Three"]


def test_items_in_a_file_are_counted_and_told(make_settings, tmp_path, caplog):
    items = [row["prompt"] for row in read_items("plurals") if row["split"] == "test"][:8]
    path, folder = tmp_path / "text.txt", tmp_path / "run"
    path.write_text(
        "Words that no item has, again and again. " * 40 + " ".join(f"Q: {item} cats." for item in items[:3])
    )
    folder.mkdir()
    given = (
        "pruner=wanda",
        "sparsity=0.5",
        "calibration=file",
        f"calibration.path={path}",
        "calibration.packing=false",
    )
    given += ("calibration.sequences=1", "calibration.length=4000", "task.families=[plurals]", "task.limit=8")
    for _ in range(2):  # computed, and found again
        caplog.clear()
        record = run_job(make_settings(*given, "stages=[prune,evaluate]"), "run", folder)
        assert record.status == "ok", record.error
        assert "3 of the 64 items of the tasks are in the calibration text" in caplog.text
    counts = tmp_path / "outputs" / record.artifacts["overlap"] / "overlap.json"
    assert json.loads(counts.read_text())["near_duplicates"] == 3


def test_items_that_the_model_wrote_are_counted(make_settings, tmp_path, monkeypatch):
    """The prompts hold none of them, so that the job is not refused; what follows them holds one."""
    item = next(row["prompt"] for row in read_items("plurals") if row["split"] == "test")

    def written(bench):
        text = continued_of(bench)
        return replace(text, tokens=[bench.tokenizer.encode(f" {item}"), *text.tokens[1:]])

    monkeypatch.setattr(overlap, "continued_of", written)
    folder = tmp_path / "run"
    folder.mkdir()
    given = (*TRIAL, "calibration.sequences=4", "task.families=[plurals]", "task.limit=8", "stages=[prune,evaluate]")
    record = run_job(make_settings(*given), "run", folder)
    assert record.status == "ok", record.error
    counts = json.loads((tmp_path / "outputs" / record.artifacts["overlap"] / "overlap.json").read_text())
    assert item in counts["examples"]
