"""Tasks of lm-eval by name: what is asked, what comes out, and what is refused."""

from __future__ import annotations

import time

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM

from pipeline.evaluate.ask import prepare
from pipeline.evaluate.by_harness import encode_requests, evaluate
from pipeline.evaluate.harness import load_tasks, rows_of
from pipeline.evaluate.results import ITEM_COLUMNS, SCORE_COLUMNS, read_samples
from pipeline.evaluate.suite import TaskEntry
from pipeline.evaluate.suites.by_name import LmEvalSuite
from pipeline.evaluate.suites.names import names, runs_code
from pipeline.model.tokens import tokens_of

TASKS = """
import datasets

WORDS = ("ape", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")


def rows(**_):
    made = [
        {"question": f"The {word} says", "options": [word, "no", "maybe"][: 2 + place % 2], "label": place % 2}
        for place, word in enumerate(WORDS)
    ]
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(made)})
"""
CHOICE = """
task: {name}
output_type: multiple_choice
custom_dataset: !function animals.rows
test_split: test
fewshot_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: options
doc_to_target: label
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""
WRITING = """
task: noises
output_type: generate_until
custom_dataset: !function animals.rows
test_split: test
fewshot_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{options[0]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
GROUP = """
group: zoo
task: [animals, birds]
aggregate_metric_list:
  - metric: acc
    weight_by_size: true
"""


@pytest.fixture
def folder(tmp_path):
    """Task files as a user would write them: two multiple-choice tasks in a group, and one that generates."""
    place = tmp_path / "tasks"
    place.mkdir()
    (place / "animals.py").write_text(TASKS)
    (place / "animals.yaml").write_text(CHOICE.format(name="animals"))
    (place / "birds.yaml").write_text(CHOICE.format(name="birds"))
    (place / "noises.yaml").write_text(WRITING)
    (place / "zoo.yaml").write_text(GROUP)
    return place


@pytest.fixture
def suite(folder):
    def make(*chosen: str, **options) -> LmEvalSuite:
        return LmEvalSuite(name="mine", names=list(chosen), include=str(folder), allow_code_execution=True, **options)

    return make


def test_tasks_of_ones_own_folder_are_scored_with_every_metric(suite, make_model, tokenizer):
    found = evaluate(make_model(), tokenizer, suite("animals", "noises"), seed=0)
    assert list(found.scores) == SCORE_COLUMNS and list(found.items) == ITEM_COLUMNS
    scores = found.scores.set_index(["task", "metric"])
    assert set(scores.index) == {("animals", "acc"), ("animals", "acc_norm"), ("noises", "exact_match")}
    assert scores.main.to_dict() == {
        ("animals", "acc"): False,
        ("animals", "acc_norm"): True,
        ("noises", "exact_match"): True,
    }
    assert (scores.n == 8).all() and (scores.shots == 0).all() and scores.higher_is_better.all()
    # Four items have two options and four have three.
    assert scores.chance[("animals", "acc_norm")] == pytest.approx((4 / 2 + 4 / 3) / 8)
    assert scores.chance[("noises", "exact_match")] == 0
    means = found.items.groupby("task").score.mean()
    assert means["animals"] == pytest.approx(scores.value[("animals", "acc_norm")])


def test_samples_keep_prompt_completion_gold_and_score(suite, make_model, tokenizer, tmp_path):
    found = evaluate(make_model(), tokenizer, suite("noises", "animals", limit=3), seed=0)
    found.save(tmp_path)
    samples = list(read_samples(tmp_path))
    written = [sample for sample in samples if sample["task"] == "noises"]
    assert [sample["prompt"] for sample in written] == ["The ape says", "The bee says", "The cat says"]
    assert [sample["gold"] for sample in written] == ["ape", "bee", "cat"]
    assert all(isinstance(sample["completion"], str) and sample["score"] in (0, 1) for sample in written)
    chosen = [sample for sample in samples if sample["task"] == "animals"]
    best = [
        sample["options"][max(range(len(sample["options"])), key=sample["log_likelihoods"].__getitem__)]
        for sample in chosen
    ]
    assert [sample["completion"] for sample in chosen] == best


def test_a_group_that_lm_eval_sums_up_is_one_row(suite, make_model, tokenizer):
    found = evaluate(make_model(), tokenizer, suite("zoo", limit=4), seed=0)
    assert set(found.scores.task) == {"zoo"}
    main = found.scores[found.scores.main].iloc[0]
    assert (main.metric, main.n, main.kind) == ("acc", 8, "multiple_choice")
    assert len(found.items) == 8 and found.items.item.tolist() == list(range(8))
    assert found.items.score.mean() == pytest.approx(main.value)


def test_shots_come_from_other_items_and_follow_from_the_seed(suite, make_model, tokenizer):
    model = make_model()

    def prompts(seed: int) -> list[str]:
        return [sample["prompt"] for sample in evaluate(model, tokenizer, suite("noises", shots=2), seed).samples]

    first = prompts(0)
    assert first == prompts(0) != prompts(1)
    for prompt in first:
        *examples, asked = prompt.split("\n\n")
        assert len(examples) == 2 and not any(example.startswith(asked) for example in examples)
    assert evaluate(model, tokenizer, suite("noises", shots=2), 0).scores.shots.tolist() == [2]


def test_the_main_metric_can_be_chosen(suite, make_model, tokenizer):
    found = evaluate(make_model(), tokenizer, suite("animals", metrics={"animals": "acc"}), seed=0)
    assert found.scores[found.scores.main].metric.tolist() == ["acc"]
    with pytest.raises(ValueError, match="reports no f7; choose from acc, acc_norm"):
        evaluate(make_model(), tokenizer, suite("animals", metrics={"animals": "f7"}), seed=0)


def test_scores_are_those_of_the_harness_own_model(suite, make_model, tokenizer):
    model, chosen = make_model(), suite("animals", "noises", shots=1)
    mine = evaluate(model, tokenizer, chosen, seed=3).scores.set_index(["task", "metric"]).value
    theirs = lm_eval.evaluator.evaluate(
        lm=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, backend="causal"),
        task_dict=load_tasks(chosen, 3).as_harness(),
        bootstrap_iters=0,
    )["results"]
    for task, metric in mine.index:
        assert mine[task, metric] == pytest.approx(theirs[task][f"{metric},none"])


def test_a_request_is_tokenised_once_for_all_models(suite, make_model, tokenizer, tmp_path, monkeypatch):
    model, chosen = make_model(), suite("animals", "noises")
    remembered = tokens_of(tokenizer)
    encode_requests(model, tokenizer, chosen, seed=0)
    assert len(remembered) > 0
    remembered.save(tmp_path)
    fresh = type(remembered)()
    fresh.read(tmp_path)
    assert len(fresh) == len(remembered)

    encode = type(tokenizer).encode

    def once(self, text, **options):
        # Stop sequences are the harness's own affair.
        assert "The" not in text, "tokenised again"
        return encode(self, text, **options)

    monkeypatch.setattr(type(tokenizer), "encode", once)
    first = evaluate(model, tokenizer, chosen, seed=0)
    other = evaluate(make_model("gpt2"), tokenizer, chosen, seed=0)
    assert len(first.items) == len(other.items) == 16


def test_prompts_are_put_into_the_chat_format_where_wanted(suite, make_model, tokenizer, monkeypatch):
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    found = evaluate(make_model(), tokenizer, suite("noises", limit=1, chat_template=True), seed=0)
    assert found.samples[0]["prompt"] == "<user>The ape says<assistant>"


def test_an_unreachable_hub_is_said_at_once_with_the_offline_choice(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(ValueError, match=r"openai/gsm8k.*127\.0\.0\.1:9 cannot be reached.*task=offline"):
        prepare(LmEvalSuite(name="lm_eval", names=["gsm8k"]), seed=0)
    # Retries wait for minutes in all, each longer than the one before.
    assert sum(waits) < 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": []}, "task.names is empty"),
        ({"names": ["gsm8"]}, "lm-eval has no gsm8; did you mean gsm8k"),
        ({"names": ["hellaswag"], "include": "/nowhere"}, "task.include=/nowhere is not a folder"),
        ({"names": ["hellaswag"], "metrics": {"piqa": "acc"}}, "task.metrics: piqa is not among task.names"),
        ({"names": ["humaneval", "mbpp"]}, "humaneval and mbpp run generated code: give allow_code_execution=true"),
        ({"names": ["mbpp_instruct"]}, "mbpp_instruct runs generated code"),
        ({"names": ["hellaswag"], "shots": -1}, "task.shots=-1 should be at least 0"),
    ],
)
def test_what_is_wrong_with_a_choice_of_tasks_is_said(options, words):
    found = LmEvalSuite(name="lm_eval", **options).problems()
    assert len(found) == 1 and words in found[0]


def test_right_choices_of_tasks_have_no_problems():
    assert LmEvalSuite(name="x", names=["hellaswag", "mmlu", "super-glue-lm-eval-v1"]).problems() == []
    assert LmEvalSuite(name="x", names=["humaneval"], allow_code_execution=True).problems() == []
    assert not runs_code(names()["mmlu"]) and runs_code(names()["humaneval"])
    assert len(names()) > 10_000


def test_a_task_that_runs_code_is_refused_when_loaded_through_a_folder(folder):
    (folder / "programs.yaml").write_text(WRITING.replace("noises", "programs") + "unsafe_code: true\n")
    suite = LmEvalSuite(name="mine", names=["programs"], include=str(folder))
    assert "programs runs generated code" in suite.problems()[0]
    with pytest.raises(ValueError, match="programs runs generated code: give allow_code_execution=true"):
        load_tasks(suite, 0)


def test_a_task_that_runs_code_by_itself_is_refused(folder):
    (folder / "runner.py").write_text("def score(doc, results):\n    exec(results[0])\n    return {'acc': 1.0}\n")
    task = WRITING.replace("noises", "sly") + "process_results: !function runner.score\n"
    (folder / "sly.yaml").write_text(task)
    suite = LmEvalSuite(name="mine", names=["sly"], include=str(folder), allow_code_execution=True)
    with pytest.raises(ValueError, match="sly runs generated code outside the sandbox"):
        load_tasks(suite, 0)


def test_the_order_of_rows_is_that_of_the_names(suite):
    chosen = suite("noises", "birds", "animals")
    rows = list(rows_of(chosen, load_tasks(chosen, 0)))
    assert [row.task for row in rows] == ["noises", "birds", "animals"]
    assert chosen.entries()[0] == TaskEntry("noises", "noises")


def test_conditions_do_not_depend_on_which_other_tasks_are_asked(suite):
    assert suite("noises").conditions() == suite("noises", "birds").conditions()
    assert suite("noises").identity() != suite("noises", "birds").identity()
    assert suite("noises").conditions() != suite("noises", shots=1).conditions()


def test_nothing_is_left_on_the_model(suite, make_model, tokenizer):
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, tokenizer, suite("animals"), seed=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
