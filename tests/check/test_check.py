from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import chosen
from omegaconf import OmegaConf

from pipeline.check.command_line import problems
from pipeline.config.choices import CONF, choices_of
from pipeline.config.schema import GROUPS
from pipeline.config.signature import signature

HEAVY = ("torch", "transformers", "lm_eval", "wandb", "pandas", "matplotlib", "datasets", "pyarrow")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.main", *arguments], capture_output=True, text=True, check=False
    )


def test_default_configuration_has_no_problems():
    assert problems([], multirun=False) == []
    assert problems(["pruner=shortgpt,wanda", "sparsity=0.2,0.4"], multirun=True) == []
    assert problems(["pruner=divergence", "sparsity=4", "calibration=news,shots"], multirun=True) == []
    by_predictions = ["pruner=perplexity,output_change,evolution,taylor_attn", "sparsity=4"]
    assert problems([*by_predictions, "calibration=trajectories"], multirun=True) == []
    assert len(problems(by_predictions, multirun=True)) == 4


def test_all_problems_at_once_with_the_nearest_choice():
    found = problems(
        [
            "pruner=shortgtp",
            "sparsity=1.5",
            "task.limt=3",
            "+extra=1",
            "calibration.sequences=0",
            "dtype=bf16",
            "stages=[eval]",
        ],
        multirun=False,
    )
    text = "\n".join(found)
    assert len(found) == 7
    for expected in (
        "did you mean shortgpt?",
        "outside 0..1",
        "did you mean task.limit?",
        "extra is not a key",
        "at least 1",
        "did you mean bfloat16?",
        "did you mean evaluate?",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["pruner=shortgpt", "sparsity=2:4"], "pruner=shortgpt takes a fraction"),
        (["pruner=wanda", "sparsity=8"], "pruner=wanda takes a fraction"),
        (["model=random", "pruner=attn_drop", "sparsity=8"], "has 4 attention sublayers; give at most 4"),
        (["model=random", "pruner=shortgpt", "sparsity=4"], "removes all 4 blocks"),
        (["pruner=shortgpt", "sparsity=31"], "has 30 blocks"),
        (["model=hf"], "model.path is required"),
        (["model=hf", "model.path=./nowhere"], "is not a directory"),
        (["model=hf", "model.path=tests"], "contains no config.json"),
        (["model.path=x"], "model.path is not a key of model=smollm2"),
        (["calibration=file"], "calibration.path is required: give calibration.path=<file or directory>"),
        (["calibration=file", "calibration.path=./nowhere.txt"], "is neither a file nor a directory; give a .txt"),
        (["calibration=file", "calibration.path=pyproject.toml"], "unsupported file type; give a .txt"),
        (["calibration=trajectories", "calibration.path=README.md"], "unsupported file type; give a .txt"),
        (["calibration=trajectories", "calibration.path=tests"], "calibration.path=tests is a directory"),
        (["calibration=trajectories", "calibration.path=LICENSE.jsonl"], "is neither a file nor a directory"),
        (
            ["calibration=trajectories", "calibration.sequences=500"],
            "but there are only 92 prompts; lower it",
        ),
        (
            ["calibration=trajectories", "calibration.packing=true"],
            "continues prompts one by one; leave it out",
        ),
        (["calibration=shots", "calibration.families=[]"], "calibration.families is empty; choose from copying"),
        (["calibration=shots", "calibration.families=[copyng]"], "did you mean copying?"),
        (["calibration=shots", "calibration.path=x.txt"], "calibration.path is not a key of calibration=shots"),
        (["task.families=[copyng]"], "did you mean copying?"),
        (["task.kinds=[generation]"], "did you mean generative?"),
        (["task.kinds=[]"], "task.kinds is empty; choose from generative, multiple_choice"),
        (["task.limit=many"], "task.limit=many should be a whole number"),
        (["measure.temperatures=[0]"], "each item a number from 0.001 to 1000"),
        (["capture.steps=x"], "capture.steps=x"),
        (["capture.steps=0"], "capture.steps=0 should be a whole number from 1 to 10000"),
        (["capture.option_items=-1"], "capture.option_items=-1 should be a whole number of at least 0"),
        (["capture.temperature=nan"], "must be a finite number"),
        (["measure.temperatures=[1,1]"], "should be a list of at least one number, without repeats"),
        (["seed=1.5"], "seed=1.5 should be a whole number from 0"),
        (["capture.steps=true"], "should be a whole number"),
        (
            ["pruner=divergence", "calibration=news", "pruner.unit=layer"],
            "choose from attention, block, mlp, sublayer",
        ),
        (["pruner=attn_drop", "pruner.unit=block"], "does not exist; choose from attention, mlp, sublayer"),
        (["capture.decoding=beam"], "capture.decoding=beam does not exist; choose from greedy, sample"),
        (["capture.protocols=[free]"], "capture.protocols: free does not exist; did you mean free_running?"),
        (["capture.protocols=[]"], "capture.protocols is empty; choose from layer"),
        (["measure.readout=norm"], "did you mean final_norm?"),
        (["figures.select=[fig99]"], "figures.select: fig99 does not exist; did you mean fig"),
        (["figures.select=[fig04,fig05_orthogonal]"], "did you mean fig05_orthogonal_magnitude?"),
        (["figures.select=[]"], "figures.select is empty; choose from fig01"),
        (["figures=[fig04]"], "write figures.select=[fig04]"),
        (["figures.select=fig4"], "figures.select: fig4 does not exist; did you mean fig"),
        (["stages=prun"], "stages: prun does not exist; did you mean prune?"),
        (["task.families=copyng"], "did you mean copying?"),
        (["model=my-group/model-7b"], "write model=hf model.path=my-group/model-7b"),
        (
            ["task.names=gsm8k"],
            "task.names is not a key of task=matched; give task=lm_eval or offline or paper, which have",
        ),
        (["task=gsm8k"], "write task=lm_eval task.names=[gsm8k]"),
        (["figures.style=papr"], "figures.style=papr does not exist; did you mean paper?"),
        (["figures.page=675"], "figures.page=675.0 should be a number of inches from 2 to 40"),
        (["figures.column=wide"], "should be a number of inches"),
        (["figures.include=nowhere"], "there is no folder nowhere; give the one that holds your figures"),
        (["figures.width=7"], "figures.width is not a key; did you mean figures."),
        (["probes=nowhere.txt"], "probes=nowhere.txt cannot be read as text"),
        (["probes=pyproject.toml"], "probes=pyproject.toml: give a .txt file"),
        (["wandb.mode=loud"], "wandb.mode=loud does not exist"),
        (["outputs=pyproject.toml/x"], "is a file"),
        (["pruner=shortgpt,wanda"], "add -m"),
        (["~seed"], "write key=value"),
        (["sparsity"], "cannot read"),
        (["model=/my/dir"], "write model=hf model.path=/my/dir"),
        (["calibration=/my/file.txt"], "write calibration=file calibration.path=/my/file.txt"),
        (["task=hellaswag"], "write task=lm_eval task.names=[hellaswag]"),
        (["task=tests"], "write task=lm_eval task.include=tests task.names=[NAME]"),
        (["probes=runs/epoch=1"], "quote the value, as in \"probes='runs/epoch=1'\""),
        (["outputs=/x/ö [a] b"], "quote the value, as in \"outputs='/x/ö [a] b'\""),
        (["probes=it's"], "quote the value, as in 'probes="),
        (["pruner=rtn", "pruner.bits=16"], "should be a whole number from 2 to 8"),
        (["model=random", "model.architecture=lama"], "did you mean llama?"),
        (["model=random", "model.architecture=bert"], "is an encoder, which generates no text"),
        (
            ["model=random", "model.architecture=bert", "task=retrieval", "stages=[prune]", "pruner=divergence"],
            "pruner=divergence needs a model that predicts tokens",
        ),
        (
            ["pruner=divergence", "sparsity=4"],
            "add calibration=trajectories (in a sweep, for all pruners, so that they share one text)",
        ),
        (["pruner=wanda_divergence", "calibration.length=64"], "or give calibration=news to choose by that text"),
        (["model=random", "pruner=joint_drop", "sparsity=9"], "has 8 sublayers; give at most 8"),
        (["model=minilm"], "so it cannot run evaluate, capture, measure; give task=retrieval"),
        (["model=minilm", "task=retrieval"], "generates no text, so it cannot run capture, measure;"),
        (["model=random", "model.embedding={lenght: 3}"], "model.embedding: unknown key lenght"),
        (["task=lm_eval"], "task.names is required: give task.names=<list of lm-eval task names>"),
        (["task=paper"], "humaneval and mbpp run generated code: give allow_code_execution=true"),
        (["task=offline", "task.names=[pika]"], "did you mean piqa?"),
        (["task=offline", "task.names=[humaneval]"], "humaneval runs generated code"),
        (["task=retrieval", "task.pooling=meen"], "did you mean mean?"),
        (["task=beir"], "task.sets is required: give task.sets=<list of directories>"),
        (["task=beir", "task.sets=[nowhere]"], "task.sets: "),
        (["task.shots=-1"], "task.shots=-1 should be at least 0"),
        (["task.limit=1.5"], "should be a whole number of at least 1 or a fraction above 0 and below 1"),
        (
            ["task.gen_kwargs={temperatur: 0.7}"],
            "task.gen_kwargs: temperatur does not exist; did you mean temperature?",
        ),
        (["task.gen_kwargs=temperature=0.7,do_sample=true"], "quote the value, as in"),
        (["task.predict_only=maybe"], "task.predict_only=maybe should be true or false"),
        (["task.fewshot_as_multiturn=true"], "add task.chat_template=true"),
        (["task.system_instuction=x"], "did you mean task.system_instruction?"),
        (["task=retrieval", "task.gen_kwargs={top_k: 5}"], "task.gen_kwargs is not a key of task=retrieval"),
        (
            ["task=offline", "task.metrics={piqa: f7}", "task.names=[boolq]"],
            "task.metrics: piqa is not among task.names",
        ),
        (["task.shots={copying: -1}"], "should be at least 0"),
        (["perplexity.window=1"], "perplexity.window=1 should be at least 2 and less than"),
        (["perplexity.stride=512"], "perplexity.stride=512 should be at least 1 and less than"),
        (["perplexity.text=nowhere.txt"], "perplexity.text=nowhere.txt: give stories, or a .txt"),
        (["export.path=tests"], "contains other files"),
        (["export.path=README.md/x"], "is a file; give a folder"),
        (["export.path=''"], "export.path is empty"),
        (["export=pruned"], "write export.path=pruned"),
        (["export.format=gguff"], "export.format=gguff does not exist"),
        (["capture=3"], "capture is a group of keys"),
    ],
)
def test_bad_input_says_what_to_do(overrides, expected):
    found = problems(overrides, multirun=False)
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize("word", ["pruner=prune_it", "model=gpt2", "task=mine", "seeed_of_everything=1"])
def test_words_that_are_like_nothing_are_not_taken_for_something(word):
    (found,) = problems([word], multirun=False)
    assert "did you mean" not in found and "choose from" in found


@pytest.mark.parametrize(
    ("words", "single"),
    [
        ([], "stages=prune"),
        ([], "capture.protocols=teacher_forced"),
        ([], "measure.extra=cka"),
        ([], "measure.temperatures=0.5"),
        ([], "figures.select=fig04"),
        ([], "task.kinds=generative"),
        (["pruner=wanda", "calibration=shots"], "calibration.families=copying"),
        (["task=offline"], "task.names=boolq"),
        (["task=lm_eval"], "task.names=gsm8k"),
        (["task=retrieval"], "task.sets=boolq"),
    ],
)
def test_a_single_name_is_a_list_of_one(words, single, make_settings):
    assert problems([*words, single], multirun=False) == problems([*words, _bracketed(single)], multirun=False)
    base = ["model=random"]
    one, several = (make_settings(*words, word, base=base) for word in (single, _bracketed(single)))
    assert one == several


def _bracketed(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}=[{value}]"


def write_model(folder: Path, **facts: object) -> None:
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "tokenizer.json").write_text("{}")


def test_lengths_beyond_the_positions_of_a_local_model_are_refused_before_any_work(tmp_path):
    write_model(tmp_path, model_type="llama", max_position_embeddings=256)
    lengths = ["perplexity.window=300", "perplexity.stride=100", "capture.steps=257", "calibration.length=256"]
    words = ["model=hf", f"model.path={tmp_path}", *lengths]
    found = problems(words, multirun=False)
    told = "is more than the model's 256 positions; give at most 256"
    assert found == [f"perplexity.window=300 {told}", f"capture.steps=257 {told}"]
    assert problems([*words, "perplexity.tokens=null", "stages=[prune,evaluate]"], multirun=False) == []


def test_a_folder_without_a_tokenizer_is_refused_before_any_work(tmp_path):
    write_model(tmp_path, model_type="llama")
    (tmp_path / "tokenizer.json").unlink()
    (found,) = problems(["model=hf", f"model.path={tmp_path}"], multirun=False)
    assert "contains no tokenizer; copy tokenizer.json" in found


def test_the_layers_of_a_local_model_are_known_without_loading_it(tmp_path):
    write_model(tmp_path, num_hidden_layers=6)
    found = problems(["model=hf", f"model.path={tmp_path}", "pruner=mlp_drop", "sparsity=7"], multirun=False)
    assert len(found) == 1
    assert "6 MLP sublayers" in found[0]


def test_the_architecture_of_a_local_model_is_known_without_loading_it(tmp_path):
    write_model(tmp_path, model_type="novel")
    found = problems(["model=hf", f"model.path={tmp_path}"], multirun=False)
    assert len(found) == 1
    assert "model type novel is unknown to the installed transformers" in found[0] and "did you mean" not in found[0]


def test_an_export_never_goes_where_the_model_is(tmp_path):
    write_model(tmp_path, model_type="llama")
    found = problems(["model=hf", f"model.path={tmp_path}", f"export.path={tmp_path}"], multirun=False)
    assert found == [f"export.path={tmp_path} is the folder that the model is loaded from; give another folder"]


def test_every_job_of_a_sweep_is_checked():
    found = problems(["model=random", "pruner=shortgpt,wanda", "sparsity=8,2:4"], multirun=True)
    assert len(found) == 3


def test_nothing_heavy_is_imported_for_a_check_or_for_help():
    script = (
        "import sys; sys.argv = ['main', {argument!r}]\n"
        "from pipeline import main\n"
        "try: code = main.main()\n"
        "except SystemExit as stop: code = stop.code\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules], 'code:', code)"
    )
    for argument, code in (("pruner=nothing", 2), ("probes=nowhere.txt", 2), ("experiment=fig03", 2), ("--help", 0)):
        done = subprocess.run(
            [sys.executable, "-c", script.format(argument=argument)], capture_output=True, text=True, check=True
        )
        assert f"heavy: [] code: {code}" in done.stdout.replace("None", "0")


def test_command_line_refuses_with_a_status_and_without_a_traceback():
    done = run("pruner=shortgtp", "sparsity=7.5")
    assert done.returncode == 2
    assert "2 problems" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_choices_and_keys():
    done = run("--help")
    assert done.returncode == 0
    for word in (*choices_of("pruner"), *choices_of("model"), "sparsity", "task.limit", "wandb.mode", "model.path"):
        assert word in done.stdout


@pytest.mark.parametrize("group", GROUPS)
def test_every_yaml_sets_every_field_of_its_constructor_and_nothing_else(group):
    for choice in choices_of(group):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            node = OmegaConf.to_container(compose("config", overrides=[f"{group}={choice}"]), resolve=False)[group]
        assert set(node) - {"_target_"} == set(signature(node["_target_"]).fields), f"conf/{group}/{choice}.yaml"


KEYS = st.sampled_from(
    [
        "sparsity",
        "pruner",
        "model",
        "task.limit",
        "seed",
        "stages",
        "capture.steps",
        "measure.temperatures",
        "nothing",
        "model.layers",
        "calibration.length",
        "outputs",
        "probes",
        "figures",
        "figures.select",
        "experiment",
        "capture.protocols",
        "capture.temperature",
        "sweep",
        "sparsity_of",
    ]
)
VALUES = st.one_of(
    st.text(st.characters(codec="ascii", exclude_characters="\n\r\0"), max_size=10),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["[]", "null", "2:4", "{a: 1}", "${seed}", "???", "[1,2]", "true"]),
)


@chosen(2)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=4, unique_by=lambda pair: pair[0]))
def test_any_command_line_is_checked_without_crashing(pairs):
    found = problems([f"{key}={value}" for key, value in pairs], multirun=False)
    assert all(isinstance(problem, str) and problem for problem in found)


def test_dense_has_no_sparsity_whatever_the_sweep_has(make_settings):
    assert make_settings("pruner=dense", "sparsity=0.5").sparsity.is_zero
    assert make_settings("pruner=wanda", "sparsity=0.5").sparsity.fraction == 0.5


def test_the_text_of_perplexity_is_held_out(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("A text. " * 50)
    words = ["calibration=file", f"calibration.path={path}", f"perplexity.text={path}"]
    assert "is the calibration text" in problems(words, multirun=False)[0]
    assert problems(words[:2], multirun=False) == problems([f"perplexity.text={path}"], multirun=False) == []


def test_secrets_are_refused_and_not_shown(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "planted-in-the-environment")
    for value in ("x/hf_" + "a1B2" * 9, "x/planted-in-the-environment"):
        found = problems(["model=hf", f"model.path={value}"], multirun=False)
        assert any("model.path contains" in problem and "HF_TOKEN" in problem for problem in found)
        assert value not in "".join(found) and "planted-in" not in "".join(found)


def test_a_reference_to_a_value_of_another_type_is_refused():
    (problem,) = problems(["measure.temperatures=${seed}"], multirun=False)
    assert problem == "measure.temperatures=[0.0] should be a list, each item a number from 0.001 to 1000"


def test_a_whole_number_is_a_float_where_a_float_is_taken(make_settings):
    whole, same = (
        make_settings(f"measure.temperatures=[1,{two}]", f"capture.temperature={two}") for two in ("2", "2.0")
    )
    assert all(type(value) is float for value in (*whole.measure.temperatures, whole.capture.temperature))
    assert whole.flat == same.flat


def test_a_configuration_that_was_never_checked_is_refused_when_it_is_resolved(make_settings):
    """As for a caller who composes it with Hydra alone."""
    with pytest.raises(ValueError, match=r"seed=x should be a whole number .*; pruner.bits=9 should be .* from 2 to 8"):
        make_settings("seed=x", "calibration.seed=0", "pruner=rtn", "pruner.bits=9")


def test_a_number_stands_for_its_text_where_a_text_is_taken():
    assert problems(["outputs=2026", "wandb.project=7"], multirun=False) == []
    assert "should be a string" in problems(["outputs=true"], multirun=False)[0]


def test_the_jobs_of_a_sweep_are_not_put_into_one_run():
    words = ["pruner=wanda,magnitude", "sparsity=0.5"]
    (problem,) = problems([*words, "wandb.id=mine"], multirun=True)
    assert problem == "wandb.id=mine would be the run of all 2 jobs; without it, each job has an id of its own"
    assert problems([*words, "wandb.id='a-${pruner.name}'"], multirun=True) == []
    assert problems(["pruner=wanda", "sparsity=0.5", "wandb.id=mine"], multirun=True) == []
