"""Components by name: as the command line composes them, checked in the same words, with no trace left in Hydra."""

from __future__ import annotations

import sys

import hydra
import numpy as np
import pytest
from cases import SOME_PRUNERS
from helpers import pruner_of
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from omegaconf import OmegaConf

from pipeline.config import by_name
from pipeline.config.by_name import component, settings


@pytest.fixture(autouse=True)
def _compose_anew():
    by_name._composed.cache_clear()


def test_pruners_are_those_of_the_command_line():
    for name in SOME_PRUNERS:
        assert component("pruner", name, {}) == pruner_of(name)


def test_options_and_values_of_the_root():
    assert component("pruner", "divergence_mlp", {"beam": np.int64(2), "confidence": 3}).beam == 2
    news = component("calibration", "news", {"sequences": 7}, seed=5)
    assert (news.sequences, news.seed, news.length) == (7, 5, 256)
    assert component("task", "matched", {"families": ("plurals",)}).families == ["plurals"]
    assert settings("capture", steps=3).steps == 3
    assert settings("measure", temperatures=(1, 0.5)).temperatures == [1.0, 0.5]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: component("pruner", "wnda", {}), "pruner=wnda does not exist; did you mean wanda"),
        (
            lambda: component("pruner", "divergence", {"beem": 2}),
            "pruner.beem: unknown key; did you mean beam",
        ),
        (
            lambda: component("pruner", "divergence", {"beam": 0}),
            "pruner.beam=0 should be a whole number",
        ),
        (lambda: component("pruner", "divergence", {"lazy": "no"}), "pruner.lazy=no should be true or false"),
        (lambda: component("pruner", "divergence", {"unit": "head"}), "pruner.unit=head does not exist"),
        (
            lambda: component("pruner", "divergence", {"confidence": float("nan")}),
            "pruner.confidence=nan must be a finite number",
        ),
        (lambda: component("pruner", "wanda", {"_target_": "os.system"}), "pruner._target_ belongs to the YAML file"),
        (lambda: component("pruner", "wanda", {}, seed=-1), "seed=-1 should be a whole number from 0"),
        (lambda: component("calibration", "file", {}), "calibration.path is required"),
        (lambda: settings("capture", step=3), "capture.step: unknown key; did you mean steps"),
        (lambda: settings("measure", temperatures=[0]), "measure.temperatures"),
    ],
)
def test_wrong_names_and_values_are_refused_in_the_words_of_the_check(call, sentence):
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        call()


def test_no_state_of_hydra_is_left_where_there_was_none():
    for kind in (GlobalHydra, VersionBase, JobRuntime):
        Singleton._instances.pop(kind, None)
    OmegaConf.clear_resolver("now")
    component("pruner", "wanda", {})
    assert not {GlobalHydra, VersionBase, JobRuntime} & Singleton._instances.keys()
    assert not OmegaConf.has_resolver("now")


def test_an_application_that_has_initialised_hydra_finds_it_as_it_was(tmp_path):
    (tmp_path / "own.yaml").write_text("width: 3\n")
    with initialize_config_dir(str(tmp_path), job_name="own", version_base="1.2"):
        before = GlobalHydra.instance().hydra
        assert component("pruner", "wanda", {}).name == "wanda"
        assert GlobalHydra.instance().hydra is before
        assert (str(VersionBase.instance().getbase()), JobRuntime.instance().get("name")) == ("1.2", "own")
        assert compose("own").width == 3


def test_inside_an_application_of_hydra(tmp_path, monkeypatch):
    (tmp_path / "app.yaml").write_text("width: 3\nname: ${hydra:job.name}\n")
    found = []

    def app(cfg):
        found.append(component("pruner", "divergence", {"beam": cfg.width}).beam)
        found.append(cfg.name == HydraConfig.get().job.name)

    # Without a configuration of logging, which would silence every logger of this process from here on.
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"]
    monkeypatch.setattr(sys, "argv", ["app", *quiet, f"hydra.run.dir={tmp_path}"])
    GlobalHydra.instance().clear()
    try:
        hydra.main(version_base="1.3", config_path=str(tmp_path), config_name="app")(app)()
    finally:
        GlobalHydra.instance().clear()
        Singleton._instances.pop(HydraConfig, None)
    assert found == [3, True]
