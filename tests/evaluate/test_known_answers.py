"""Golds made from what a model writes: which answers are right, in which order, and where a wrong one leaves them."""

from __future__ import annotations

import json
from math import comb
from string import ascii_lowercase

import pytest
import torch
from scipy.special import softmax
from scipy.stats import rankdata

from pipeline.evaluate.by_harness import evaluate
from pipeline.evaluate.suites.by_name import LmEvalSuite

PROMPTS = ["one: ", "two: ", "and three: ", "four: "]
WRITING = """
task: known
output_type: generate_until
custom_dataset: !function known.rows
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{gold}}"
target_delimiter: ""
generation_kwargs: {until: ["|"], max_gen_toks: 6}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
"""
CHOOSING = """
task: chosen
output_type: multiple_choice
custom_dataset: !function known.rows
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: [a, b, c, d]
doc_to_target: 0
process_results: !function known.mass_of_right_options
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
CODE = """
import datasets
import numpy as np

ROWS = {rows!r}


def rows(**_):
    return datasets.DatasetDict({{"test": datasets.Dataset.from_list(ROWS)}})


def mass_of_right_options(doc, results):
    p = np.exp([each[0] for each in results])
    return {{"acc": float((p * doc["right"]).sum() / p.sum())}}
"""


@pytest.fixture
def ask(tmp_path, tokenizer):
    """Ask a model some prompts with golds, as a task of one's own."""

    def asked(model, rows: list[dict], definition: str = WRITING, **options):
        tmp_path.joinpath("known.yaml").write_text(definition)
        tmp_path.joinpath("known.py").write_text(CODE.format(rows=rows))
        name = definition.split()[1]
        suite = LmEvalSuite(name="mine", names=[name], include=str(tmp_path), allow_code_execution=True, **options)
        return evaluate(model, tokenizer, suite, seed=0)

    return asked


@pytest.fixture
def writer(make_model, tokenizer):
    """A random model that writes letters: of others, texts could not be told apart."""
    model = make_model("llama", 2)
    with torch.no_grad():
        model.lm_head.weight[tokenizer(ascii_lowercase, add_special_tokens=False)["input_ids"]] *= 8
    return model


def questions(golds, prompts=PROMPTS) -> list[dict]:
    return [{"question": prompt, "gold": gold} for prompt, gold in zip(prompts, golds, strict=True)]


def texts(found) -> list[list[str]]:
    """Return all answers to each item."""
    return [json.loads(line)["resps"][0] for line in found.lm_eval if '"resps"' in line]


def passes(found) -> dict[str, float]:
    rows = found.scores[found.scores["metric"].str.startswith("pass@")]
    return dict(zip(rows["metric"], rows["value"], strict=True))


def test_only_a_wrong_answer_that_leaves_its_gold_has_a_rank(ask, writer, tokenizer):
    model = writer
    right, begun, other, cut = (sample["completion"] for sample in ask(model, questions("....")).samples)
    assert len(begun) > 2 and len(other) > 2 and len(cut) == 6
    found = ask(model, questions([right.upper(), begun[:2], other[:2] + "~~", cut + "~"])).samples
    assert [sample["score"] for sample in found] == [1, 0, 0, 0]
    assert [("gold_rank" in sample) for sample in found] == [False, False, True, False]
    with torch.inference_mode():
        ids = tokenizer(PROMPTS[2] + other[:2])["input_ids"]
        logits = model(torch.tensor([ids])).logits[0, -1].double().numpy()
    (gold,) = tokenizer("~", add_special_tokens=False)["input_ids"]
    assert found[2]["gold_rank"] == rankdata(-logits, method="min")[gold]
    assert found[2]["gold_p"] == pytest.approx(softmax(logits)[gold], abs=1e-6)


def test_equal_prompts_get_the_same_beams_and_the_best_counts_first(ask, writer):
    model, beams = writer, {"gen_kwargs": {"num_beams": 4}}
    prompts = [*PROMPTS[:3], PROMPTS[0]]
    ranked = texts(ask(model, questions("....", prompts), samples=4, **beams))
    assert ranked[0] == ranked[3] and len(set(ranked[0])) == 4
    golds = [ranked[0][0], ranked[1][1], ranked[2][3], ranked[3][0]]
    found = ask(model, questions(golds, prompts), **beams)
    assert [sample["score"] for sample in found.samples] == [1, 0, 0, 1]
    found = ask(model, questions(golds, prompts), samples=4, **beams)
    assert passes(found) == {"pass@1": 0.5, "pass@2": 0.75, "pass@4": 1}


def test_drawn_answers_are_counted(ask, writer):
    model, drawn = writer, {"gen_kwargs": {"do_sample": True, "temperature": 0.5}, "samples": 4}
    written = texts(ask(model, questions("...."), **drawn))
    golds = [own[0] for own in written]
    counts = [own.count(gold) for own, gold in zip(written, golds, strict=True)]
    assert min(counts) < 4, "draws that are all alike tell nothing"
    found = passes(ask(model, questions(golds), **drawn))
    for k in (1, 2, 4):
        assert found[f"pass@{k}"] == pytest.approx(sum(1 - comb(4 - c, k) / comb(4, k) for c in counts) / 4)


def test_a_task_with_several_right_options_is_read_by_its_own_scoring(ask, make_model):
    """Three of four options are right: guessing one scores 0.75, whatever lm-eval names as the target."""
    rows = [{"question": prompt, "right": [1, 1, 0, 1]} for prompt in PROMPTS]
    found = ask(make_model("llama", 2), rows, CHOOSING)
    assert found.scores["chance"].tolist() == [0.75]
    for sample in found.samples:
        values = sample["log_likelihoods"]
        assert sample["gold_p"] == pytest.approx(softmax(values)[[0, 1, 3]].sum()) == pytest.approx(sample["score"])
        assert sample["gold_rank"] == 1 + (values[2] > max(values[0], values[1], values[3]))
