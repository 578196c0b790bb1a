"""The interface for Python: the numbers of the command line, nothing left behind, and mistakes refused in words."""

from __future__ import annotations

import copy
import logging
import random

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.api import compare, evaluate, export, load, measure, measure_options, prune
from pipeline.config.by_name import component, settings
from pipeline.config.choices import choices_of
from pipeline.config.sparsity import parse
from pipeline.evaluate.comparison import COLUMNS as COMPARED
from pipeline.evaluate.results import ITEM_COLUMNS, SCORE_COLUMNS
from pipeline.measure.columns import COLUMNS, INDEX
from pipeline.prune.checkpoint import as_checkpoint
from pipeline.prune.decision import Decision
from pipeline.run.job import run_job
from pipeline.store.artifacts import Store
from pipeline.store.records import OK
from pipeline.store.table_names import OPTION_TOKENS, OPTIONS
from pipeline.tables.job_tables import JobTables

FAMILIES = ["copying", "plurals"]
CALIBRATION = {"sequences": 4, "length": 32, "batch_size": 2}
PERPLEXITY = {"tokens": 96, "window": 64, "stride": 32}
TEXTS = ["Once upon a time there was a lighthouse.", "The keeper found a letter in the sand."]


@pytest.fixture
def model(make_model):
    return make_model()


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left.reset_index(drop=True), right.reset_index(drop=True), check_exact=True)


@pytest.mark.parametrize(
    ("name", "sparsity"), [("wanda", 0.5), ("shortgpt", 2), ("divergence", 2), ("sparsegpt", "2:4")]
)
def test_the_numbers_are_those_of_the_command_line(make_settings, tmp_path, model, tokenizer, name, sparsity):
    own = ("calibration=trajectories",) if name == "divergence" else ()
    stages = "stages=[prune,evaluate,capture,measure]"
    further = "measure.extra=[jensen_shannon]"
    job = make_settings(f"pruner={name}", f"sparsity={sparsity}", "dtype=float32", stages, further, *own)
    record = run_job(job, "test", tmp_path)
    assert record.status == OK, record.error
    store = Store(tmp_path / "outputs")
    tables = JobTables(record, store)

    pruned = prune(model, tokenizer, name, sparsity, calibration=CALIBRATION)
    decision = Decision.load(store.root / record.artifacts["decision"])
    assert decision.facts() == pruned.decision.facts()
    assert list(decision.changes) == list(pruned.decision.changes)
    for layer, change in decision.changes.items():
        mine = pruned.decision.changes[layer]
        for left, right in ((change.masks, mine.masks), (change.weights, mine.weights)):
            assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)

    found, dense = (evaluate(each, tokenizer, FAMILIES, limit=2, perplexity=PERPLEXITY) for each in (pruned, model))
    same(found.scores, tables.scores[SCORE_COLUMNS])
    same(found.items, tables.items[ITEM_COLUMNS])
    same(compare(dense, found), tables.comparisons[COMPARED])

    measures = measure(model, pruned, tokenizer, steps=5, extra=["jensen_shannon"])
    assert {*INDEX, *COLUMNS} < set(measures)
    same(measures, tables.measures[list(measures.columns)])
    options = measure_options(model, pruned, tokenizer, tasks=FAMILIES)
    for frame, there in ((options.sets, tables.table(OPTIONS)), (options.tokens, tables.table(OPTION_TOKENS))):
        same(frame, there[list(frame.columns)])


def test_defaults_are_those_of_the_configuration():
    capture, wanted = settings("capture"), settings("measure")
    defaults = measure.__kwdefaults__
    assert defaults["steps"] == capture.steps
    assert measure_options.__kwdefaults__["items"] == capture.option_items
    assert (defaults["decoding"], defaults["temperature"]) == (capture.decoding, capture.temperature)
    assert (list(defaults["temperatures"]), defaults["readout"]) == (wanted.temperatures, wanted.readout)


def test_every_pruner_by_its_name_leaves_the_dense_model_as_it_was(make_model, tokenizer):
    model = make_model(layers=3)
    before = copy.deepcopy(model.state_dict())
    for name in choices_of("pruner"):
        accepts = component("pruner", name, {}).accepts
        wanted = {"fraction": 0.4, "units": 1}[accepts[0]] if accepts else None
        pruned = prune(model, tokenizer, name, wanted, calibration={"sequences": 4, "length": 8})
        assert (pruned.decision.achieved > 0) == bool(accepts), name
        assert str(pruned).startswith(f"Pruned({name}")
        with torch.inference_mode():
            assert torch.isfinite(pruned.model(torch.arange(6)[None]).logits).all(), name
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


# --- nothing is left behind -------------------------------------------------------------------------------------------


def state_of(model, tokenizer) -> list[object]:
    """What belongs to the caller, in a form that can be compared."""
    backend = tokenizer.backend_tokenizer
    numbers = np.random.get_state()
    loggers = {name: logging.getLogger(name).level for name in ("", "pipeline", "transformers", "lm_eval")}
    return [
        [(name, module.training) for name, module in model.named_modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.sum().item(), p.device) for p in model.parameters()],
        model.config.to_dict(),
        model.generation_config.to_dict(),
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        (tokenizer.pad_token, tokenizer.padding_side, backend.padding, backend.truncation),
        (random.getstate(), numbers[1].tolist(), numbers[2], torch.get_rng_state().tolist()),
        (loggers, len(logging.getLogger().handlers), GlobalHydra.instance().is_initialized()),
        torch.is_grad_enabled(),
    ]


def test_lm_eval_is_silent_within_a_call_unless_its_level_is_set(model, tokenizer, caplog):
    logger = logging.getLogger("lm_eval")
    before = logger.level
    try:
        for level in (logging.NOTSET, logging.WARNING):
            logger.setLevel(level)
            caplog.clear()
            evaluate(model, tokenizer, "copying", limit=1, shots=0)
            said = [record for record in caplog.records if record.name.startswith("lm_eval")]
            assert (bool(said), logger.level) == (level == logging.WARNING, level)
    finally:
        logger.setLevel(before)


def test_models_tokenizer_and_random_numbers_are_given_back_as_they_were(model, tokenizer, tmp_path, capfd):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = None
    model.train()
    model.model.layers[1].eval()
    model.model.layers[0].requires_grad_(False)
    model.generation_config.repetition_penalty = 1.7
    model(torch.arange(5)[None], labels=torch.arange(5)[None]).loss.backward()
    weights, before = copy.deepcopy(model.state_dict()), state_of(model, tokenizer)

    pruned = prune(model, tokenizer, "attn_drop", 1, texts=TEXTS, seed=3)
    modes = [module.training for module in pruned.model.modules()]
    assert pruned.model.generation_config.repetition_penalty == 1.7
    measure(model, pruned, tokenizer, ["A prompt"], steps=2, decoding="sample", seed=4)
    capfd.readouterr()
    evaluate(pruned, tokenizer, "copying", limit=1, shots=0)
    assert capfd.readouterr() == ("", "")
    export(pruned, tmp_path / "export", tokenizer)

    assert state_of(model, tokenizer) == before
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert [module.training for module in pruned.model.modules()] == modes
    assert pruned.model.training and not pruned.model.model.layers[1].training


def test_a_pruned_model_writes_text_and_can_be_trained(model, tokenizer):
    pruned = prune(model, tokenizer, "attn_drop", 2, texts=TEXTS).model
    ids = tokenizer("Once", return_tensors="pt").input_ids
    cached, whole = (
        pruned.generate(ids, max_new_tokens=6, do_sample=False, use_cache=use, eos_token_id=None)
        for use in (True, False)
    )
    assert torch.equal(cached, whole)
    pruned.train()(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in pruned.parameters())


def test_in_place_prunes_the_model_itself(model, tokenizer):
    expected = prune(model, tokenizer, "wanda", 0.5, texts=TEXTS)
    pruned = prune(model, tokenizer, "wanda", 0.5, texts=TEXTS, in_place=True)
    assert pruned.model is model
    assert all(torch.equal(value, expected.model.state_dict()[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="both models are the same one"):
        measure(model, pruned, tokenizer, ["A prompt"])


def test_seeds_options_and_pruners_of_ones_own(model, tokenizer):
    chosen = [prune(model, None, "random_attn", 2, seed=seed).decision.attention for seed in (0, 0, 1, 2, 3)]
    assert chosen[0] == chosen[1] and len(set(chosen)) > 1
    own = component("pruner", "random_attn", {"draw": 2})
    assert prune(model, None, own, 2).decision == prune(model, None, "random_attn", 2, draw=2).decision


def test_calibration_in_every_form(model, tokenizer, tmp_path):
    (tmp_path / "text.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in TEXTS))
    options = {"path": tmp_path / "text.jsonl", "sequences": 2, "packing": False}
    sets = [{"name": "file", **options}, component("calibration", "file", options)]
    expected = prune(model, tokenizer, "shortgpt", 1, texts=TEXTS)
    for given in sets:
        assert prune(model, tokenizer, "shortgpt", 1, calibration=given).decision == expected.decision
    assert prune(model, tokenizer, "shortgpt", 1, calibration={"sequences": 2, "length": 16}).calibration.name == "news"
    for name in ("divergence", "output_change"):
        own = prune(model, tokenizer, name, 1, calibration={"sequences": 2, "length": 4})
        assert own.calibration.name == "trajectories"


# --- tasks, tables and checkpoints ------------------------------------------------------------------------------------


def test_tasks_by_the_names_of_suites_families_and_own_files(model, tokenizer, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"q": "1 + 1 =", "a": " 2"}\n{"q": "2 + 2 =", "a": " 4"}\n')
    (tmp_path / "sums.yaml").write_text(
        "task: sums\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
        'output_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\n'
        'doc_to_choice: [" 2", " 4"]\ntarget_delimiter: ""\nmetric_list: [{metric: acc}]\n'
    )
    found = evaluate(model, tokenizer, ["plurals", "sums"], limit=2, include=tmp_path, kinds=["multiple_choice"])
    main = found.scores[found.scores.main]
    assert list(main.task) == ["plurals", "sums"] and set(main.kind) == {"multiple_choice"}
    assert list(found.items.groupby("task").size()) == [2, 2]
    assert found._repr_html_() == found.scores._repr_html_()
    whole = evaluate(model, tokenizer, "matched", limit=2, families=["plurals"], kinds=["multiple_choice"])
    same(whole.scores, found.scores[found.scores.task == "plurals"])


def test_tables_are_read_when_they_are_asked_for(make_settings, tmp_path):
    with pytest.raises(FileNotFoundError, match="no tables"):
        load(tmp_path / "outputs")
    record = run_job(make_settings("pruner=magnitude", "sparsity=0.5", "stages=[prune,evaluate]"), "test", tmp_path)
    assert record.status == OK
    tables = load(tmp_path / "outputs")
    assert len(tables) == 13 and "scores" in dir(tables) and "scores" in repr(tables)
    same(tables.scores, pd.read_parquet(tmp_path / "outputs" / "tables" / "scores.parquet"))
    assert tables["items"] is tables.items and list(dict(tables)) == list(tables)
    assert tables.measures.empty and {"protocol", "layer", "variant_id"} <= set(tables.measures)
    with pytest.raises(AttributeError, match="did you mean scores"):
        _ = tables.score


@pytest.mark.parametrize(("name", "sparsity"), [("attn_drop", 2), ("shortgpt", 1), ("wanda", 0.5)])
def test_an_export_is_that_of_the_command_line_and_follows_further_training(model, tokenizer, tmp_path, name, sparsity):
    pruned = prune(model, tokenizer, name, sparsity, texts=TEXTS)
    as_checkpoint(model, pruned.decision)
    folder = export(pruned, tmp_path / "first", tokenizer=tokenizer)
    exported = AutoModelForCausalLM.from_pretrained(folder)
    expected = model.state_dict()
    assert exported.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in exported.state_dict().items())
    assert AutoTokenizer.from_pretrained(folder)("a b").input_ids == tokenizer("a b").input_ids
    assert name in (folder / "README.md").read_text() and (folder / "pruning.json").is_file()

    with torch.no_grad():
        pruned.model.model.norm.weight.mul_(1.5)
    trained = AutoModelForCausalLM.from_pretrained(export(pruned, tmp_path / "second"))
    assert torch.equal(trained.model.norm.weight, pruned.model.model.norm.weight)
    with pytest.raises(ValueError, match="give another folder"):
        export(pruned, tmp_path / "first")


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("wnda", 0.5), {}, "did you mean wanda"),
        (("wanda",), {}, "pruner=wanda needs a sparsity: a fraction .* or a pattern"),
        (("wanda", 3), {}, "sparsity=3 is a whole number of units, but pruner=wanda takes a fraction"),
        (("shortgpt", "2:4"), {}, "sparsity=2:4 is a pattern, but pruner=shortgpt takes"),
        (("shortgpt", 4), {}, "removes all 4 blocks"),
        (("wanda", 50), {}, "sparsity=50 is a whole number of units"),
        (("wanda", "half"), {}, "sparsity=half is not a sparsity"),
        (("rtn", 0.5), {}, "pruner=rtn removes nothing and takes no sparsity"),
        (("rtn",), {"bits": 9}, "pruner.bits=9 should be a whole number from 2 to 8"),
        (("wanda", 0.5), {"texts": "one text"}, "texts should be a list"),
        (("wanda", 0.5), {"texts": [1]}, "calibration.texts=.* should be a list, each item a string"),
        (("wanda", 0.5), {"calibration": "newz"}, "did you mean news"),
        (("wanda", 0.5), {"calibration": {"sequence": 3}}, "did you mean sequences"),
        (("wanda", 0.5), {"calibration": {"length": 5000}}, "calibration.length=5000 is more than the model's 4096"),
        (("wanda", 0.5), {"seed": "x"}, "seed=x should be a whole number"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_words(model, tokenizer, arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        prune(model, tokenizer, *arguments, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"protocols": ["layers"]}, "capture.protocols: layers does not exist; did you mean layer"),
        ({"protocols": ["options"]}, "options protocol has tables of its own"),
        ({"steps": 0}, "capture.steps=0 should be a whole number from 1"),
        ({"temperatures": [1.0, 1.0]}, "without repeats"),
        ({"extra": ["jensen"]}, "measure.extra: jensen does not exist"),
        ({"extra": ["cka"]}, "has a table of its own"),
        ({"readout": "norm"}, "measure.readout=norm does not exist"),
        ({"prompts": "one prompt"}, "prompts should be a list of texts"),
        ({"prompts": [{"text": "a", "step": 3}]}, "prompt 1: unknown key step"),
        ({"pruned": "model"}, "the layer protocol needs to know what was pruned"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(model, tokenizer, options, sentence):
    pruned = prune(model, tokenizer, "magnitude", 0.5)
    options = dict(options)
    given = pruned.model if options.pop("pruned", None) else pruned
    with pytest.raises(ValueError, match=sentence):
        measure(model, given, tokenizer, **options)


@pytest.mark.parametrize(
    ("tasks", "options", "sentence"),
    [
        ("matchd", {}, "tasks: matchd does not exist; did you mean matched"),
        ([], {}, "tasks is empty"),
        (["copying", "copying"], {}, "is given twice"),
        ("matched", {"familys": ["copying"]}, "familys: unknown option; did you mean families"),
        ("copying", {"families": ["plurals"]}, "families: unknown option"),
        ("copying", {"limit": 0}, "task.limit=0"),
        ("matched", {"families": ["plural"]}, "did you mean plurals"),
        ("copying", {"chat_template": True}, "no chat template"),
        ("copying", {"perplexity": {"token": 3}}, "did you mean tokens"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_words(model, tokenizer, tasks, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate(model, tokenizer, tasks, **options)


def test_encoders_are_pruned_and_exported_but_asked_for_no_text(make_model, tokenizer, tmp_path):
    encoder = make_model("bert")
    pruned = prune(encoder, tokenizer, "shortgpt", 1, texts=TEXTS)
    assert export(pruned, tmp_path / "encoder", tokenizer).is_dir()
    for call in (
        lambda: prune(encoder, tokenizer, "divergence", 1, texts=TEXTS),
        lambda: evaluate(pruned, tokenizer, "copying"),
        lambda: measure(encoder, pruned, tokenizer, ["A prompt"]),
    ):
        with pytest.raises(ValueError, match="encoder|no output head"):
            call()


def test_the_sparsity_is_spelled_as_on_the_command_line(model):
    for spelling in ("2:4", "2of4"):
        assert prune(model, None, "magnitude", spelling).sparsity == parse("2:4")
    assert prune(model, None, "magnitude", np.float64(0.1) + 0.2).sparsity.given == "0.3"
    assert prune(model, None, "random_blocks", np.int64(1)).sparsity == parse(1)
