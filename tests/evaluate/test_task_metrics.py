"""What a score means: which metric speaks for a task, what guessing gets, which scores are averaged."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import lm_eval.api.metrics
import numpy as np
import pandas as pd
import pytest
from helpers import json_lines

from pipeline.capture.options import task_questions
from pipeline.evaluate.by_harness import evaluate
from pipeline.evaluate.harness import load_tasks, rows_of
from pipeline.evaluate.metric_errors import bootstrap_stderr
from pipeline.evaluate.metrics import main_metric
from pipeline.evaluate.suites.by_name import LmEvalSuite

ROWS = [
    {"text": "The cow says", "options": ["moo", "quack", "oink", "baa"], "answer": "moo", "label": 0},
    {"text": "The duck says", "options": ["moo", "quack"], "answer": "quack", "label": 1},
    {"text": "The pig says", "options": ["moo", "quack", "oink"], "answer": "oink", "label": 2},
    {"text": "The sheep says", "options": ["baa", "baa", "moo", "quack"], "answer": "baa", "label": 0},
]
# What guessing gets: one in four, two, three and again three, as one option is there twice.
GUESSED = (1 / 4 + 1 / 2 + 1 / 3 + 1 / 3) / 4
COMMON = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
doc_to_text: "{text}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}
"""
CHOICE = 'output_type: multiple_choice\ndoc_to_choice: "{{options}}"\ndoc_to_target: "{{label}}"\n'
WRITTEN = 'output_type: generate_until\ndoc_to_target: "{{answer}}"\n'
LAST_WORD = 'output_type: loglikelihood\ndoc_to_target: " {{answer}}"\n'


def metrics(*names: str) -> str:
    return f"metric_list: [{', '.join(f'{{metric: {name}}}' for name in names)}]\n"


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "tasks"
    place.mkdir()
    (tmp_path / "rows.jsonl").write_bytes(json_lines(*ROWS))

    def make(chosen: dict[str, str] | None = None, text: str = "{{text}}", **definitions: str) -> LmEvalSuite:
        for name, definition in definitions.items():
            common = COMMON.format(name=name, rows=tmp_path / "rows.jsonl", text=text)
            (place / f"{name}.yaml").write_text(common + definition)
        return LmEvalSuite("mine", names=list(definitions), include=str(place), metrics=chosen)

    return make


def test_the_last_word_is_scored_by_accuracy_and_perplexity_is_in_no_mean(suite, make_model, tokenizer):
    asked = suite(lambada=LAST_WORD + metrics("perplexity", "acc"), only=LAST_WORD + metrics("perplexity"))
    scores = evaluate(make_model(), tokenizer, asked, 0).scores.set_index(["task", "metric"])
    assert (scores["kind"] == "generative").all()
    assert scores["main"].to_dict() == {
        ("lambada", "perplexity"): False,
        ("lambada", "acc"): True,
        ("only", "perplexity"): True,
    }
    assert scores.index[scores["averaged"]].to_list() == [("lambada", "acc")]
    assert scores.loc[("only", "perplexity"), "value"] > 1


def test_scores_of_a_hundred_are_in_no_mean(suite, make_model, tokenizer):
    asked = suite(
        translated=WRITTEN + metrics("bleu", "ter", "chrf"),
        both=WRITTEN + metrics("bleu", "exact_match"),
        backwards=WRITTEN + metrics("ter", "chrf"),
    )
    scores = evaluate(make_model(), tokenizer, asked, 0).scores
    main = scores[scores["main"]].set_index("task")
    assert main["metric"].to_dict() == {"translated": "bleu", "both": "exact_match", "backwards": "chrf"}
    assert main["averaged"].to_dict() == {"translated": False, "both": True, "backwards": False}
    assert not scores.loc[~scores["main"], "averaged"].any()


def test_a_metric_of_another_name_counts_while_its_values_are_shares(suite, make_model, tokenizer, tmp_path):
    (tmp_path / "tasks" / "own.py").write_text(
        "def share(doc, results):\n    return {'mine': 0.5}\ndef percent(doc, results):\n    return {'mine': 50.0}\n"
    )
    told = "metric_list: [{metric: mine, aggregation: mean, higher_is_better: true}]\n"
    asked = suite(
        shares=WRITTEN + "process_results: !function own.share\n" + told,
        percents=WRITTEN + "process_results: !function own.percent\n" + told,
        losses=WRITTEN + "process_results: !function own.share\n" + told.replace("true", "false"),
    )
    asked = LmEvalSuite(**(vars(asked) | {"allow_code_execution": True}))
    scores = evaluate(make_model(), tokenizer, asked, 0).scores.set_index("task")
    assert scores["averaged"].to_dict() == {"shares": True, "percents": False, "losses": False}


def test_a_metric_reported_under_another_name_is_the_main_one(suite, make_model, tokenizer, tmp_path):
    (tmp_path / "tasks" / "own.py").write_text("def pass_at_k(references, predictions):\n    return {'pass@1': 1.0}\n")
    told = "metric_list: [{metric: !function own.pass_at_k, aggregation: mean, higher_is_better: true}]\n"
    asked = LmEvalSuite(**(vars(suite(programs=WRITTEN + told)) | {"allow_code_execution": True}))
    score = evaluate(make_model(), tokenizer, asked, 0).scores.iloc[0]
    assert (score["metric"], score["main"], score["value"]) == ("pass@1", True, 1.0)


@pytest.mark.parametrize(
    ("names", "worse", "likelihood", "main"),
    [
        (["acc", "acc_norm", "f1"], [], True, "acc_norm"),
        (["mcc", "acc"], [], True, "acc"),
        (["perplexity", "acc"], ["perplexity"], True, "acc"),
        (["f1", "acc"], [], False, "f1"),
        (["bleu_max", "bleu_acc", "bleu_diff"], [], False, "bleu_acc"),
        (["wer", "bleu"], ["wer"], False, "bleu"),
        (["bleu", "rouge1", "bleurt"], [], False, "rouge1"),
        (["likelihood_diff", "pct_stereotype"], ["likelihood_diff", "pct_stereotype"], True, "likelihood_diff"),
        (["acc_ambig", "bias_score_ambig"], ["bias_score_ambig"], True, "acc_ambig"),
        # A definition of lm-eval says of these that more is better.
        (["word_perplexity", "bits_per_byte"], [], False, "word_perplexity"),
    ],
)
def test_the_main_metric_of_the_patterns_that_lm_eval_has(names, worse, likelihood, main):
    assert main_metric(names, {name: name not in worse for name in names}, likelihood) == main


@pytest.mark.parametrize("extra", [[], ["acc_mutual_info"]])
def test_guessing_is_one_in_the_number_of_different_options(suite, make_model, tokenizer, extra):
    asked = suite(sounds=CHOICE + metrics("acc", *extra))
    found = evaluate(make_model(), tokenizer, asked, 0)
    assert found.scores.set_index("metric")["chance"].to_dict() == pytest.approx(
        dict.fromkeys(["acc", *extra], GUESSED)
    )
    assert [sample["options"] for sample in found.samples] == [
        [f" {option}" for option in row["options"]] for row in ROWS
    ]
    assert (found.scores["close"] == 0).all()
    for sample in found.samples:
        best = int(np.argmax(sample["log_likelihoods"]))
        assert len(sample["log_likelihoods"]) == len(sample["options"])
        assert sample["completion"] == sample["options"][best]


def test_guessing_among_prompts_that_end_alike(suite, make_model, tokenizer):
    definition = CHOICE.replace('"{{label}}"', '"says so"')
    found = evaluate(make_model(), tokenizer, suite(text="{{label}}", prompts=definition + metrics("acc")), 0)
    assert found.scores["chance"].item() == pytest.approx(GUESSED)
    assert [sample["options"] for sample in found.samples] == [row["options"] for row in ROWS]


def test_guessing_where_several_options_are_right(suite, make_model, tokenizer):
    definition = CHOICE.replace('"{{label}}"', '"{{[0, 1]}}"').replace('"{{options}}"', '["a", "b", "c", "d"]')
    found = evaluate(make_model(), tokenizer, suite(several=definition + metrics("acc")), 0)
    assert found.scores["chance"].item() == pytest.approx(1 / 2)


def test_greedy_writing_of_the_right_option_is_no_guess(suite, make_model, tokenizer):
    found = evaluate(make_model(), tokenizer, suite(sounds=CHOICE + metrics("acc", "exact_match")), 0)
    assert found.scores.set_index("metric")["chance"].to_dict() == pytest.approx({"acc": GUESSED, "exact_match": 0.0})


def test_questions_are_asked_once_where_options_are_also_asked_alone(suite, make_model, tokenizer):
    plain, more = (
        task_questions(suite(sounds=CHOICE + metrics("acc", *extra)), 3, 0, make_model(), tokenizer)
        for extra in ([], ["acc_mutual_info"])
    )
    assert plain == more and len(more) > 0


def test_resampling_gives_lm_evals_number_here_and_quietly(suite, make_model, tokenizer, capfd, monkeypatch):
    items = [(row["answer"], text) for row, text in zip(ROWS, ["moo", "moo", "oink", "a"], strict=True)]
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    wanted = lm_eval.api.metrics.bootstrap_stderr(lm_eval.api.metrics.chrf, items, 50)
    assert bootstrap_stderr(lm_eval.api.metrics.chrf, items, 50) == pytest.approx(wanted, rel=1e-12) and wanted > 0
    monkeypatch.delenv("DISABLE_MULTIPROC")

    def no_pool(*_: object) -> None:
        raise AssertionError("a pool of processes was started")

    monkeypatch.setattr("multiprocessing.Pool", no_pool)
    capfd.readouterr()
    scores = evaluate(make_model(), tokenizer, suite(translated=WRITTEN + metrics("chrf")), 0).scores
    assert math.isfinite(scores["stderr"].item()) and "bootstrapping" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("aggregation", ["", ", aggregation: mean, higher_is_better: true"])
def test_a_metric_that_nobody_has_is_named(suite, aggregation):
    asked = suite(sounds=f"{WRITTEN}metric_list: [{{metric: exactmatch{aggregation}}}]\n")
    with pytest.raises(
        ValueError,
        match="evaluate has a metric exactmatch.*did you mean exact_match",
    ):
        load_tasks(asked, 0)


def test_a_wanted_metric_that_the_task_lacks_is_named_before_it_is_asked(suite):
    asked = suite({"sounds": "acc_nrom"}, sounds=CHOICE + metrics("acc", "acc_norm"))
    with pytest.raises(ValueError, match="task sounds reports no acc_nrom; did you mean acc_norm"):
        load_tasks(asked, 0)


def test_a_wanted_metric_is_the_main_one(suite, make_model, tokenizer):
    asked = suite({"sounds": "bleu"}, sounds=WRITTEN + metrics("exact_match", "bleu"))
    scores = evaluate(make_model(), tokenizer, asked, 0).scores.set_index("metric")
    assert scores["main"].to_dict() == {"exact_match": False, "bleu": True} and not scores["averaged"].any()
    assert [row.metric for row in rows_of(asked, load_tasks(asked, 0))] == ["bleu"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("task.metrics={sounds:bleu}", None),
        ("+task.metrics={sounds:bleu}", None),
        ("+task.metrics.sounds=bleu", None),
        ("++task.metrics.sounds=bleu", None),
        ("+task.shots.sounds=1", None),
        ("task.metrics.sounds=bleu", "write +task.metrics.sounds=VALUE"),
        ("+task.metrics.others=bleu", "others is not among task.names"),
        ("+task.limits.sounds=1", "task.limits.sounds is not a key"),
    ],
)
def test_the_main_metric_can_be_wanted_on_the_command_line(suite, tmp_path, word, said):
    asked = suite(sounds=WRITTEN + metrics("exact_match", "bleu"))
    given = ["model=random", "task=lm_eval", "task.names=[sounds]", f"task.include={asked.include}", word]
    code = (
        "import sys, pipeline.main\nfrom hydra import compose, initialize_config_dir\n"
        "from pipeline.check.command_line import problems\nfrom pipeline.config.choices import CONF\n"
        "found = problems(sys.argv[1:], False)\nprint(*found)\n"
        "if not found:\n    with initialize_config_dir(str(CONF), version_base='1.3'):\n"
        "        print(compose('config', overrides=sys.argv[1:]).task)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=True, env=os.environ, timeout=120
    ).stdout
    # A line for the problems, of which there may be none, and one for the task.
    assert (said in told) if said else (told.startswith("\n") and "'sounds': " in told), told


def test_means_of_figures_leave_out_what_is_not_averaged():
    from types import SimpleNamespace

    from pipeline.analysis.score_means import MEAN, other_scales, task_scores, with_means

    rows = [("asdiv", "exact_match", 0.5, True), ("nq", "exact_match", 0.3, True), ("wmt", "bleu", 23.0, False)]
    scores = pd.DataFrame(rows, columns=["task", "metric", "value", "averaged"]).assign(
        kind="generative",
        model="m",
        pruner="dense",
        sparsity="0",
        options="",
        replicate="",
        achieved=0.0,
        stderr=0.1,
        chance=0.0,
    )
    half = scores.assign(pruner="p", sparsity="0.5", value=0.2, averaged=True)
    tables = SimpleNamespace(scores=pd.concat([scores, half], ignore_index=True))
    found = with_means(task_scores(tables, ["generative"]))
    means = found[found["series"] == MEAN].set_index("pruner")["score_percent"]
    assert means.to_dict() == pytest.approx({"dense": 40.0, "p": 20.0})
    assert set(found["series"]) == {"asdiv", "nq", MEAN}
    assert "wmt (bleu)" in other_scales(tables, ["generative"])[0]
