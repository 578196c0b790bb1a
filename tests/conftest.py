"""Shared fixtures: tiny seeded models of the chosen architectures, and jobs on them."""

from __future__ import annotations

import gc
import io
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cases
import hydra_once  # noqa: F401 - faster compositions
import pytest
import torch
from choice import header
from fake_wandb import forget_account
from helpers import SOME_FAMILIES, context_for
from hydra import compose, initialize_config_dir
from PIL import Image

from pipeline.common.quiet import quiet_libraries
from pipeline.config.choices import CONF
from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.model.sources.random import RandomModel
from pipeline.prune.settings import Settings
from pipeline.run.compose import resolve
from pipeline.store.artifacts import Store

quiet_libraries()
# Tiny matrices and several test processes: more threads only wait for each other, in what the tests start as well.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is started a dozen times need not be compiled each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tables are as wide as where the output is no terminal, however wide the one is that the tests run in.
os.environ.pop("COLUMNS", None)

TINY = (
    "model=random",
    "task.limit=2",
    "task.families=[copying,plurals]",
    "calibration.sequences=4",
    "calibration.length=32",
    "calibration.batch_size=2",
    "capture.steps=5",
    "perplexity.tokens=96",
    "perplexity.window=64",
    "perplexity.stride=32",
    # Drawing takes longer than all the rest: who needs figures asks for them, with `DRAWN`.
    "stages=[prune,evaluate,capture,measure]",
    "figures.select=[fig01]",
    "wandb.mode=disabled",
)
DRAWN = "stages=[prune,evaluate,capture,measure,plot]"


@pytest.fixture(scope="module", autouse=True)
def _long_lived() -> None:
    """Jobs collect garbage; what is loaded is none, and looking through it takes longer than a tiny job."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _logging_as_imported() -> None:
    """A command configures logging for its process; the tests after it see every record all the same."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("pipeline") and isinstance(logger, logging.Logger):
            logger.propagate = True
            logger.handlers.clear()


@pytest.fixture(scope="session")
def outputs_of_sweep(tmp_path_factory) -> Path:
    """The outputs of a sweep of two jobs whose W&B runs are kept on disk: only to be read."""
    from tracked_sweep import run_sweep

    root = tmp_path_factory.mktemp("tracked") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        forget_account(patch, tmp_path_factory.mktemp("home"))
        run_sweep(root)
    return root


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """Figures are drawn and written, but rendered as one pixel: for tests of their numbers and captions."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _, stream, **__: stream.write(buffer.getvalue()))


@pytest.fixture(params=SOME_FAMILIES)
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """One token per byte."""
    return RandomModel(name="random").tokenizer(Store(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture
def make_model(tmp_path) -> Callable[..., Any]:
    """``make_model(architecture, layers)`` gives a tiny float32 model."""

    def make(architecture: str = "llama", layers: int = 4) -> Any:
        source = RandomModel(name="random", architecture=architecture, layers=layers)
        return source.load(torch.float32, Store(tmp_path / "store"))

    return make


@pytest.fixture
def make_settings(tmp_path) -> Callable[..., Settings]:
    """``make_settings("pruner=wanda", ...)`` composes a tiny job as the command line would."""

    def make(*overrides: str, outputs: Path = tmp_path / "outputs", base: Sequence[str] = TINY) -> Settings:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return resolve(compose("config", overrides=[*base, f"outputs={outputs}", *overrides]))

    return make


@pytest.fixture
def decide(make_settings, make_model):
    """``decide("wanda", 0.5)`` gives a pruner's decision on a tiny model."""

    def run(name: str, sparsity: object, architecture: str = "llama", *overrides: str):
        pruner, model = make_settings(f"pruner={name}", *overrides).pruner, make_model(architecture)
        torch.manual_seed(0)
        return pruner.decide(Decoder(model), parse(sparsity), context_for(pruner, model))

    return run


def pytest_report_header() -> list[str]:
    return header()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Half of the dearest tests, chosen by commit, and all others: the longest files first."""
    _rotate(config, items)
    _longest_first(items)


def _rotate(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out half of the tests marked ``rotated``; those of the same name stay together."""
    names = {item: mark.args[0] for item in items if (mark := item.get_closest_marker("rotated"))}
    if unknown := set(names.values()) - set(cases.DEAREST):
        raise pytest.UsageError(f"add to DEAREST in tests/cases.py: {', '.join(sorted(unknown))}")
    left_out = [item for item, name in names.items() if name not in cases.SOME_DEAREST]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _longest_first(items: list[pytest.Item]) -> None:
    """The longest files first, so that parallel workers end together; within a file the order stays."""
    longest = (
        "test_real_model.py",
        "test_slurm.py",
        "test_main.py",
        "test_figures.py",
        "test_experiments.py",
        "test_api.py",
        "test_doors.py",
        "test_inspect.py",
        "test_evaluation_stages.py",
        "test_launchers.py",
        "test_own_numbers.py",
        "test_report.py",
        "test_fault_injection.py",
        "test_advise.py",
        "test_score_figures.py",
        "test_final_figures.py",
        "test_own_figure.py",
        "test_layer_figures.py",
        "test_criteria.py",
        "test_divergence.py",
        "test_results.py",
        "test_export.py",
        "test_check.py",
    )
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))
