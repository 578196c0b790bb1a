"""The science, on the embedded language model: it loads, solves the matched items, and loses generation first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import lm_eval
import pandas as pd
import pytest
import torch
import yaml
from cases import LM_EVAL_COMMAND, NOTHING_PRUNED, SOME_BENCHMARKS, SOME_PAIRS, SOME_REAL, SOME_UNCHANGED
from helpers import json_lines
from naive import DEVIATIONS

from pipeline.config.probes import PROBES
from pipeline.data.matched.suite import INCLUDE_PATH, METRICS
from pipeline.evaluate.row_width import widest_row
from pipeline.evaluate.stage import Evaluation
from pipeline.evaluate.suites.offline.rows import rows
from pipeline.measure.stage import Measures, OptionMeasures
from pipeline.model.as_read import AsRead, as_read, rounding_level
from pipeline.model.cached_rows import span
from pipeline.model.decoder import Decoder
from pipeline.model.proof import caches_well, prove
from pipeline.model.sources.base import load_pretrained, load_tokenizer
from pipeline.model.trajectory import capture_trajectory
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Store

pytestmark = pytest.mark.real_model

BASE = (
    "model=smollm2",
    "task.limit=8",
    "task.families=[copying,plurals]",
    "calibration.sequences=8",
    "calibration.length=256",
    "wandb.mode=disabled",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture
def bench(make_settings, root):
    def make(*overrides: str, base: Sequence[str] = BASE) -> Workbench:
        settings = make_settings(*overrides, outputs=root, base=base)
        return Workbench(settings, Store(root))

    return make


def scores(bench: Workbench) -> pd.Series:
    return pd.read_parquet(bench.make(Evaluation).file("scores.parquet")).groupby("kind")["value"].mean()


def test_the_converted_checkpoint_is_a_stock_one_and_converted_once(bench):
    dense = bench("pruner=dense")
    source = dense.settings.model
    checkpoint = source.checkpoint(dense.store)
    assert checkpoint.file("model.safetensors").is_file()
    assert not source.checkpoint(dense.store).built
    model = load_pretrained(str(checkpoint.path), torch.float32)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    tokenizer = load_tokenizer(str(checkpoint.path))
    assert tokenizer.decode(tokenizer("The capital of France is Paris.").input_ids) == "The capital of France is Paris."
    probe = next(probe for probe in PROBES if probe.name == "open-2")
    text = "".join(capture_trajectory(model, tokenizer, [probe], 20, residual=False).texts[0])
    assert "light" in text or "sky" in text


def test_dense_solves_both_forms_and_generation_is_lost_first(bench):
    dense = scores(bench("pruner=dense"))
    assert dense["generative"] >= 0.8
    assert dense["multiple_choice"] >= 0.9
    dropped = scores(bench("pruner=attn_drop", "sparsity=8"))
    assert dense["generative"] - dropped["generative"] > 0.3
    assert dense["multiple_choice"] - dropped["multiple_choice"] < 0.1


def chosen(confirmation: str) -> pytest.MarkDecorator:
    """Tiny models show the same in seconds: of these, `make test` runs one."""
    return pytest.mark.skipif(confirmation not in SOME_REAL, reason="not chosen by this commit")


@chosen(NOTHING_PRUNED)
@pytest.mark.parametrize("layers", [(8, 9, 10, 11, 12, 13, 14, 15), (1, 3, 5, 7, 9, 20, 22, 24)])
def test_rounding_in_half_precision_is_not_taken_for_another_way_to_continue(bench, layers):
    """Without these sublayers, bfloat16 moves single logits by as much as their size, and decides between tokens."""
    dense = bench("pruner=dense")
    model = dense.settings.model.load(torch.bfloat16, dense.store)
    apply(model, Decision(attention=layers))
    assert Decoder(model).uses_cache
    assert as_read(model).batched
    assert span(model) == float("inf")


@chosen(NOTHING_PRUNED)
@pytest.mark.parametrize("layers", [range(20, 26), range(14, 26)])
def test_rounding_that_a_pruned_model_amplifies_is_not_taken_for_another_way_to_read(bench, layers):
    """Without these blocks a unit in the last place of float32 moves single logits by some 1e-4 of the largest."""
    dense = bench("pruner=dense")
    model = dense.settings.model.load(torch.float32, dense.store)
    # As in a job, which proves the dense model before it prunes it in place.
    prove(model)
    before = rounding_level(model)
    apply(model, Decision(blocks=tuple(layers)))
    # By how much depends on the processor; the dense model's level would be the same number.
    assert rounding_level(model) > before
    assert as_read(model) == AsRead(generate=True, alone=True, padded=True)
    assert Decoder(model).uses_cache and caches_well(Decoder(model))
    assert span(model) == float("inf") and widest_row(model) > 0


@pytest.mark.parametrize("pruner", SOME_UNCHANGED)
def test_sparsity_zero_deviates_nowhere_in_any_layer(bench, tmp_path, pruner):
    probes = tmp_path / "probes.jsonl"
    choice = {"text": "Which of these is a mammal?", "options": ["Salmon", "Dolphin"]}
    probes.write_bytes(json_lines(choice, {"text": "Explain to a child why the sky looks blue."}))
    zero = bench(f"pruner={pruner}", "sparsity=0", "capture.steps=3", f"probes={probes}", "capture.option_items=0")
    measures = pd.read_parquet(zero.make(Measures).file("measures.parquet"))
    assert set(measures.protocol) == {"layer", "teacher_forced", "free_running"}
    assert measures[measures.protocol == "layer"].groupby(["layer", "sublayer"]).ngroups == 60
    for name in DEVIATIONS:
        assert (measures[name] == (1.0 if "cos" in name else 0.0)).all(), name
    options = pd.read_parquet(zero.make(OptionMeasures).file("options.parquet"))
    assert set(options.kl) == set(options.flip) == {0.0}


# Benchmarks that lm-eval has a definition of, and where it lies.
OWN = {
    "openbookqa": "openbookqa/openbookqa.yaml",
    "commonsense_qa": "commonsense_qa/default.yaml",
    "social_iqa": "siqa/siqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "nq_open": "nq_open/nq_open.yaml",
}
ITEMS = 4


def as_task_files(folder: Path) -> None:
    """The same items as lm-eval reads them by itself: its own definitions on files of rows."""
    home = Path(lm_eval.__file__).parent / "tasks"
    for name in SOME_BENCHMARKS:
        data = folder / f"{name}.jsonl"
        data.write_bytes(json_lines(*rows(name)[:ITEMS]))
        task = {
            "include": str(home / OWN[name]),
            "task": f"cli_{name}",
            "tag": None,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "training_split": None,
            "validation_split": None,
            "test_split": "test",
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    for path in INCLUDE_PATH.glob("*.yaml"):
        (folder / path.name).write_text(path.read_text())


def command_line(checkpoint: Path, dtype: str, folder: Path, tasks: list[str]) -> dict[str, dict[str, float]]:
    """What lm-eval's own command reports."""
    # Without reading the 14,000 definitions of which none is asked for.
    own_command = (
        "from functools import partialmethod; from lm_eval.tasks import TaskManager; "
        "TaskManager.__init__ = partialmethod(TaskManager.__init__, include_defaults=False); "
        "from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
    )
    words = ["run", "--model", "hf", "--model_args", f"pretrained={checkpoint},dtype={dtype}", "--tasks", *tasks]
    words += ["--include_path", str(folder), "--limit", str(ITEMS), "--batch_size", "8", "--device", "cpu"]
    words += ["--output_path", str(folder / "results.json")]
    done = subprocess.run(
        [sys.executable, "-c", own_command, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(next(folder.glob("results*.json")).read_text())["results"]


@chosen(LM_EVAL_COMMAND)
def test_dense_scores_are_those_of_lm_evals_own_command(bench, tmp_path):
    limit = f"task.limit={ITEMS}"
    chosen = ("task=offline", f"task.names=[{','.join(SOME_BENCHMARKS)}]", "task.shots=null")
    others = [word for word in BASE if not word.startswith("task.")]
    offline = bench(*chosen, limit, "pruner=dense", base=others)
    matched = bench("pruner=dense", limit, f"task.families=[{','.join(SOME_PAIRS)}]")
    as_task_files(tmp_path)
    families = [f"matched_{family}_{kind}" for family in SOME_PAIRS for kind in METRICS]
    checkpoint = offline.settings.model.checkpoint(offline.store).path
    theirs = command_line(
        checkpoint, offline.dtype, tmp_path, [*(f"cli_{name}" for name in SOME_BENCHMARKS), *families]
    )
    mine = pd.concat([pd.read_parquet(bench.make(Evaluation).file("scores.parquet")) for bench in (offline, matched)])
    compared = 0
    for row in mine.itertuples():
        name = f"cli_{row.task}" if row.task in OWN else f"matched_{row.task}_{row.kind}"
        for key, value in theirs.get(name, {}).items():
            if key.partition(",")[0] == row.metric:
                assert abs(row.value - value) <= max(row.stderr, 1e-9), (row.task, row.metric, row.value, value)
                compared += 1
    # Two metrics of OpenBookQA, one of each of the others, and both forms of each family.
    assert compared == len(SOME_BENCHMARKS) + ("openbookqa" in SOME_BENCHMARKS) + 2 * len(SOME_PAIRS)
