"""The matched suite: its files, its items, and what lm-eval makes of them. No model takes part."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections import Counter

import pytest
from places import ROOT

from pipeline.data.matched import words
from pipeline.data.matched.data import read_items
from pipeline.data.matched.generate import BUILDERS, family_text
from pipeline.data.matched.suite import FAMILIES, HALVES, INCLUDE_PATH, ITEMS_PATH, RELATIVES, items_file, matched_tasks
from pipeline.evaluate.suites.matched import MatchedSuite

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}


def _split(family: str, split: str) -> list[dict]:
    return [row for row in read_items(family) if row["split"] == split]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    """Every task of the suite as lm-eval loads it, with sockets shut and far away from the repository."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        patch.setattr(socket.socket, "connect", _no_network)
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=str(INCLUDE_PATH), include_defaults=False)
        assert sorted(manager.all_tasks) == sorted(task.name for task in matched_tasks())
        tasks = manager.load([task.name for task in matched_tasks()])["tasks"]
        for task in tasks.values():
            task.build_all_requests(limit=8)
        yield tasks


def _no_network(*_: object) -> None:
    raise AssertionError("the matched suite tried to open a connection")


def test_every_family_has_its_files_and_there_are_no_others():
    assert sorted(path.stem for path in ITEMS_PATH.iterdir()) == sorted(FAMILIES) == sorted(BUILDERS)
    wanted = {task.name.removeprefix("matched_") for task in matched_tasks()}
    assert {path.stem for path in INCLUDE_PATH.glob("*.yaml") if not path.stem.startswith("_")} == wanted


def test_tasks_of_chosen_families_come_in_order_with_their_metric():
    found = [(task.name, task.family, task.kind, task.metric) for task in matched_tasks(["plurals", "copying"])]
    assert found == [
        ("matched_plurals_generative", "plurals", "generative", "exact_match"),
        ("matched_plurals_multiple_choice", "plurals", "multiple_choice", "acc"),
        ("matched_copying_generative", "copying", "generative", "exact_match"),
        ("matched_copying_multiple_choice", "copying", "multiple_choice", "acc"),
    ]


def test_one_kind_of_the_families_can_be_asked_alone():
    suite = MatchedSuite("matched", families=["plurals", "copying"], kinds=["generative"])
    assert [entry.name for entry in suite.entries()] == ["matched_plurals_generative", "matched_copying_generative"]
    # How a task is asked is the same with and without the others.
    assert suite.conditions() == MatchedSuite("matched").conditions()


def _words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def _template(family: str) -> frozenset[str]:
    """The words that all prompts of a family have in common."""
    return frozenset(set.intersection(*(_words_of(row["prompt"]) for row in read_items(family))))


def _asked(family: str) -> set[str]:
    """The words that its items are about: of prompts and options, without the template's."""
    rows = read_items(family)
    return set().union(*(_words_of(" ".join([row["prompt"], *row["choices"]])) for row in rows)) - _template(family)


def test_halves_share_no_verb_no_template_and_no_prompt():
    first, second = HALVES
    assert sorted([*first, *second]) == sorted(FAMILIES) and len(first) == len(second)
    assert all(set(group) <= set(first) or set(group) <= set(second) for group in RELATIVES)
    prompts = [{row["prompt"] for family in half for row in read_items(family)} for half in HALVES]
    assert len(prompts[0] & prompts[1]) == 0
    templates = [{_template(family) for family in half} - {frozenset()} for half in HALVES]
    assert len(templates[0] & templates[1]) == 0
    verbs = {*words.PAST_TENSE, *words.PAST_TENSE.values(), *words.PARTICIPLES, *words.PARTICIPLES.values()}
    asked = set().union(*map(_asked, first))
    # Two words are spelled like verbs: a clean bag, and a watch to be put into the plural.
    assert len((asked & verbs) - {"clean", "watch"}) == 0
    # The halves that were used before: verbs in both.
    assert len(_asked("past_tense") & _asked("participles")) > 40


def test_an_unknown_family_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"Did you mean 'copying'\? Choose from: copying, "):
        matched_tasks(["copyng"])


def test_listing_the_tasks_imports_nothing_heavy():
    program = (
        "import sys, pipeline.data.matched.suite as suite; suite.matched_tasks();"
        "print(sorted({'torch', 'lm_eval', 'datasets', 'transformers', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("family", FAMILIES)
def test_shipped_items_are_what_the_generator_writes(family: str):
    assert items_file(family).read_text(encoding="utf-8") == family_text(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_options_are_four_different_ones_and_hold_the_answer_where_the_label_says(family: str):
    for row in read_items(family):
        assert len(row["choices"]) == len({_as_scored(choice) for choice in row["choices"]}) == 4
        assert row["choices"][row["label"]] == row["answer"]
        assert all(choice == choice.strip() and "\n" not in choice for choice in row["choices"])
        assert row["prompt"] == row["prompt"].strip()


def _as_scored(text: str) -> str:
    """What exact match compares: no case, no punctuation."""
    return "".join(character for character in text.lower() if character.isalnum() or character == " ")


@pytest.mark.parametrize("family", FAMILIES)
def test_answer_positions_are_balanced_in_every_whole_group_of_four(family: str):
    labels = [row["label"] for row in _split(family, "test")]
    assert len(labels) >= 50
    assert all(sorted(labels[start : start + 4]) == [0, 1, 2, 3] for start in range(0, len(labels), 4))


@pytest.mark.parametrize("family", FAMILIES)
def test_examples_and_test_items_are_disjoint_and_none_repeats(family: str):
    prompts = Counter(row["prompt"] for row in read_items(family))
    assert prompts.most_common(1)[0][1] == 1
    shown = {row["answer"] for row in _split(family, "fewshot")}
    assert not shown & {row["answer"] for row in _split(family, "test")}


def test_wrong_options_are_of_the_answers_type():
    for row in read_items("copying"):
        lengths = {len(choice.split(", ")) for choice in row["choices"]}
        shared = [set(choice.split(", ")) & set(row["answer"].split(", ")) for choice in row["choices"]]
        assert lengths == {5}
        assert sorted(map(len, shared)) == [4, 5, 5, 5]
    for family in ("past_tense", "participles", "plurals", "antonyms", "nationalities"):
        rows = read_items(family)
        assert len({row["answer"] for row in rows}) == len(rows)
    for row in read_items("counting"):
        one, two = map(int, row["prompt"].split())
        assert [one + 1, one + 2, one + 3] == [two, *map(int, row["answer"].split())]


@pytest.mark.parametrize("family", FAMILIES)
def test_both_forms_of_an_item_show_the_same_text(family: str, loaded):
    generative, choice = (loaded[task.name] for task in matched_tasks([family]))
    examples = "".join(f"{row['prompt']} {row['answer']}\n\n" for row in _split(family, "fewshot"))
    rows = _split(family, "test")[:8]
    wanted = [examples + row["prompt"] for row in rows]
    assert [instance.args[0] for instance in generative.instances] == wanted
    assert [(instance.args[0], instance.args[1]) for instance in choice.instances] == [
        (context, f" {option}") for context, row in zip(wanted, rows, strict=True) for option in row["choices"]
    ]
    assert len(generative.eval_docs) == len(choice.eval_docs) == len(_split(family, "test"))


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_greedy_one_line_and_short(family: str, loaded):
    (generative, _) = matched_tasks([family])
    for instance in loaded[generative.name].instances:
        settings = instance.args[1]
        assert settings["until"] == ["\n"]
        assert settings["do_sample"] is False
        assert 5 <= settings["max_gen_toks"] <= 12


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_scores_one_in_both_forms_and_anything_else_zero(family: str, loaded):
    generative, choice = (loaded[task.name] for task in matched_tasks([family]))
    for row in _split(family, "test")[:4]:
        assert _generated(generative, row, f" {row['answer'].upper()}. ") == 1
        assert _generated(generative, row, row["choices"][row["label"] - 1]) == 0
        assert _generated(generative, row, row["answer"] + " and") == 0
        likely = [(-1.0 - (index != row["label"]), False) for index in range(4)]
        assert choice.process_results(row, likely)["acc"] == 1
        assert choice.process_results(row, likely[1:] + likely[:1])["acc"] == 0


def _generated(task, row: dict, text: str) -> float:
    """The score of one generated line, after the task's own filters."""
    instance = next(instance for instance in task.instances if instance.doc["id"] == row["id"])
    instance.resps = [text]
    instance.filtered_resps = {}
    (filters,) = task._filters
    filters.apply([instance])
    return task.process_results(row, [instance.filtered_resps[filters.name]])["exact_match"]
