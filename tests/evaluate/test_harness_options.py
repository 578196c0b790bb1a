"""lm-eval's options: prompts, answers and scores are those of lm-eval itself on the same model, item by item."""

from __future__ import annotations

import json

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from pipeline.evaluate.by_harness import evaluate
from pipeline.evaluate.suites.by_name import LmEvalSuite

WORDS = ("ape", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")
SEED, BATCH = 3, 4
# Parts of a sample that do not depend on the model, or are texts that it wrote.
EQUAL = ("doc_id", "target", "arguments", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash")
COMMON = """
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/test.jsonl, train: {folder}/train.jsonl}}
test_split: test
fewshot_split: train
doc_to_text: "{{{{question}}}}"
"""
CHOICE = """
task: animals
output_type: multiple_choice
doc_to_choice: options
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
WRITING = """
task: noises
output_type: generate_until
doc_to_target: "{{options[0]}}"
generation_kwargs: {until: ["Q"], do_sample: false, temperature: 0.0, max_gen_toks: 6}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
GROUP = "group: zoo\ntask: [animals]\naggregate_metric_list:\n  - {metric: acc, weight_by_size: true}\n"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture
def folder(tmp_path):
    """Two tasks on data of their own, one that chooses and one that writes."""
    place = tmp_path / "tasks"
    place.mkdir()
    rows = [
        {"question": f"The {word} says", "options": [word, "no", "maybe"], "label": at % 3}
        for at, word in enumerate(WORDS)
    ]
    for split, own in (("test", rows[:7]), ("train", rows[7:])):
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    common = COMMON.format(folder=place)
    (place / "animals.yaml").write_text(CHOICE + common)
    (place / "noises.yaml").write_text(WRITING + common)
    (place / "zoo.yaml").write_text(GROUP)
    return place


@pytest.fixture
def suite(folder):
    def make(*names: str, **options) -> LmEvalSuite:
        chosen = list(names or ("animals", "noises"))
        return LmEvalSuite(name="mine", names=chosen, include=str(folder), batch_size=BATCH, **options)

    return make


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def theirs(model, tokenizer, folder, tmp_path):
    """``theirs(**options)`` asks lm-eval itself, with the model from disk."""

    def ask(**options):
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
        return simple_evaluate(
            model="hf",
            model_args={"pretrained": str(tmp_path / "model"), "dtype": "float32"},
            tasks=["animals", "noises"],
            batch_size=BATCH,
            device="cpu",
            bootstrap_iters=0,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            **dict.fromkeys(seeds, SEED),
            **options,
        )

    return ask


CASES = {
    "drawn": ({"gen_kwargs": {"temperature": 0.7, "do_sample": True, "max_gen_toks": 5}},) * 2,
    "drawn, as text": ({"gen_kwargs": "temperature=1.5,do_sample=true,top_k=20"},) * 2,
    "instructed": ({"system_instruction": "Answer with a word."},) * 2,
    "shots and a share": ({"shots": 2, "limit": 0.3}, {"num_fewshot": 2, "limit": 0.3}),
    "chat in turns": (
        {"shots": 2, "chat_template": True, "system_instruction": "Be brief."},
        {"num_fewshot": 2, "apply_chat_template": True, "system_instruction": "Be brief."},
    ),
    "chat in one turn": (
        {"shots": 2, "chat_template": True, "fewshot_as_multiturn": False},
        {"num_fewshot": 2, "apply_chat_template": True, "fewshot_as_multiturn": False},
    ),
}


@pytest.mark.parametrize(("own", "of_lm_eval"), CASES.values(), ids=CASES)
def test_every_item_is_asked_answered_and_scored_as_by_lm_eval_itself(
    own, of_lm_eval, suite, model, tokenizer, theirs, monkeypatch
):
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    found = evaluate(model, tokenizer, suite(**own), SEED)
    results, *samples = map(json.loads, found.lm_eval)
    expected = theirs(**of_lm_eval)
    assert results["n-samples"] == expected["n-samples"] and results["n-shot"] == expected["n-shot"]
    for task, told in expected["samples"].items():
        mine = [sample for sample in samples if sample["task"] == task]
        assert len(mine) == len(told) == {0.3: 3}.get(own.get("limit"), 7)
        for one, other in zip(mine, told, strict=True):
            other |= {"arguments": _written(other["arguments"]), "target": str(other["target"])}
            assert {name: one[name] for name in EQUAL} == {name: other[name] for name in EQUAL}
            assert {name: one[name] for name in one["metrics"]} == {name: other[name] for name in one["metrics"]}
            if task == "noises":
                assert one["resps"] == other["resps"]
        for metric in mine[0]["metrics"]:
            assert results["results"][task][f"{metric},none"] == expected["results"][task][f"{metric},none"]


def _written(arguments) -> dict:
    """Arguments as in lm-eval's files."""
    return {
        f"gen_args_{number}": {f"arg_{at}": part for at, part in enumerate(request)}
        for number, request in enumerate(arguments)
    }


def test_answers_can_be_kept_without_being_scored(suite, model, tokenizer, tmp_path):
    plain = evaluate(model, tokenizer, suite("noises", "zoo"), SEED)
    found = evaluate(model, tokenizer, suite("noises", "zoo", predict_only=True), SEED)
    assert found.scores.empty and found.items.empty
    left = {"score", "answer"}
    for own, scored in zip(found.samples, plain.samples, strict=True):
        assert own["score"] is None
        assert {key: value for key, value in own.items() if key not in left} == {
            key: value for key, value in scored.items() if key not in left
        }
    found.save(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.gz")) == ["lm_eval.jsonl.gz", "samples.jsonl.gz"]
    assert not list(tmp_path.glob("*.parquet"))


def test_drawn_texts_follow_from_the_seed_alone_and_change_no_later_suite(suite, model, tokenizer):
    drawn = suite("noises", gen_kwargs={"do_sample": True, "temperature": 2.0})

    def texts(chosen: LmEvalSuite, seed: int) -> list[str]:
        return [sample["completion"] for sample in evaluate(model, tokenizer, chosen, seed).samples]

    greedy, first = texts(suite("noises"), 0), texts(drawn, 0)
    assert first != greedy and first == texts(drawn, 0) != texts(drawn, 1)
    assert texts(suite("noises"), 0) == greedy


def test_options_at_their_defaults_are_in_no_key_and_spellings_of_one_way_have_one(suite):
    plain = suite().identity()
    assert not {"gen_kwargs", "system_instruction", "fewshot_as_multiturn", "predict_only", "batch_size"} & set(plain)
    assert suite(gen_kwargs={}, fewshot_as_multiturn=False).identity() == plain
    text, pairs = "do_sample=true, temperature=0.7", {"temperature": 0.7, "do_sample": True}
    assert suite(gen_kwargs=text).identity() == suite(gen_kwargs=pairs).identity() != plain
    chat = suite(chat_template=True)
    assert chat.identity() == suite(chat_template=True, fewshot_as_multiturn=True).identity()
    assert chat.identity() != suite(chat_template=True, fewshot_as_multiturn=False).identity()
    for changed in ({"system_instruction": "Go."}, {"predict_only": True}, {"limit": 0.5}):
        assert suite(**changed).identity() != plain
    # Where tokens are drawn, the batches decide which draw is whose.
    assert suite(gen_kwargs=pairs).identity()["batch_size"] == BATCH


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temprature": 0.7}, "task.gen_kwargs: temprature does not exist; did you mean temperature?"),
        ({"top_p": 1.5}, "task.gen_kwargs.top_p=1.5 should be a fraction above 0 and at most 1"),
        ({"max_gen_toks": 0}, "task.gen_kwargs.max_gen_toks=0 should be a whole number of at least 1"),
        ({"max_new_tokens": 5}, "write max_gen_toks instead of max_new_tokens"),
        ({"until": 3}, "task.gen_kwargs.until=3 should be a string or a list"),
        ({"temperature": 0.7, "top_p": 0.9}, "temperature and top_p would do nothing without do_sample=true; add"),
        ({"temperature": 0.7, "do_sample": False}, "take do_sample=false out, or leave it out"),
        ({"do_sample": True}, "do_sample=true needs a temperature above 0; add temperature=1.0"),
        ("temperature", "'temperature' is not name=value; write task.gen_kwargs={temperature: 0.7}"),
    ],
)
def test_what_is_wrong_with_parameters_of_generation_is_said(given, words, suite):
    (problem,) = suite(gen_kwargs=given).problems()
    assert words in problem


def test_parameters_of_generation_as_text_are_those_of_lm_eval(suite):
    given = suite(gen_kwargs='until=["\\n", "a,b"],do_sample=True,temperature=1e-1,max_gen_toks=4')
    assert given.problems() == []
    assert given.generation == {"until": ["\n", "a,b"], "do_sample": True, "temperature": 0.1, "max_gen_toks": 4}
    # A command line's mapping can hold no line break itself.
    assert suite(gen_kwargs={"until": "\\n\\n"}).generation == {"until": "\n\n"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fewshot_as_multiturn": True}, "makes examples turns of a chat: add task.chat_template=true"),
        ({"system_instruction": "  "}, "task.system_instruction is blank; give a text, or null for none"),
    ],
)
def test_what_is_wrong_with_prompting_is_said(options, words, suite):
    (problem,) = suite(**options).problems()
    assert words in problem
