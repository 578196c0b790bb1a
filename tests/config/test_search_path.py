"""Folders with configuration of the user's own: what Hydra composes and what checks read are the same files."""

from __future__ import annotations

import sys

import pytest
from hydra import compose, initialize_config_dir
from own_configuration import own_folder

from pipeline.check.command_line import problems
from pipeline.config.choices import choices_of, read_choice
from pipeline.config.experiment import expand
from pipeline.config.search_path import CONF, folder_of, search_also, searched, shadowed
from pipeline.config.signature import component_problems
from pipeline.run.compose import resolve

PACKAGE = "package_of_ones_own"


@pytest.fixture(autouse=True)
def _alone():
    yield
    search_also([])


@pytest.fixture
def own(tmp_path, monkeypatch):
    # As paths may be: Hydra decodes nothing.
    folder = own_folder(tmp_path / "my own, %20 [folder]", PACKAGE)
    monkeypatch.syspath_prepend(str(folder))
    search_also([folder / "conf"])
    yield folder
    # The next test has a package of this name elsewhere.
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_choices_of_ones_own_stand_beside_the_projects(own):
    assert {"last_blocks", "wanda"} <= set(choices_of("pruner"))
    assert read_choice("pruner", "last_blocks")["kept"] == 1
    search_also([])
    assert "last_blocks" not in choices_of("pruner")


def test_hydra_composes_them_from_the_same_folders(own, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=["pruner=last_blocks", "sparsity=2", f"outputs={tmp_path}", *searched()])
    settings = resolve(cfg)
    assert settings.pruner.kept == 1
    # Two packages may have classes of the same name.
    assert settings.pruner.identity()["type"] == f"{PACKAGE}.last_blocks.LastBlocks"


def test_components_of_ones_own_are_checked_as_the_projects_are(own):
    found = problems(["model=random", "pruner=last_blocks", "sparsity=0.5", "pruner.kept=much"], multirun=False)
    assert any("pruner.kept=much should be a whole number" in problem for problem in found)
    assert any("sparsity=0.5" in problem and "last_blocks" in problem for problem in found)
    assert problems(["model=random", "pruner=last_blocks", "sparsity=1"], multirun=False) == []


def test_a_class_that_is_no_component_of_its_group_is_refused(own):
    (own / PACKAGE / "other.py").write_text("class Other:\n    name: str = ''\n", encoding="utf-8")
    (problem,) = component_problems("pruner", {"_target_": f"{PACKAGE}.other.Other", "name": "x"})
    assert "derive it from pipeline.prune.base.Pruner" in problem


def test_each_sparsity_of_an_experiments_list_is_checked(own):
    words = ["model=random", "experiment=own", "pruner=last_blocks,magnitude"]
    assert problems(words, multirun=True) == []
    (problem,) = problems(["model=random", "experiment=own", "pruner=magnitude"], multirun=False)
    assert "add -m" in problem


def test_an_impossible_one_among_them_is_refused(own, tmp_path):
    other = own_folder(tmp_path / "other", PACKAGE, sparsities="[1, 99]")
    search_also([other / "conf"])
    (problem,) = problems(["model=random", "experiment=own", "pruner=last_blocks,magnitude"], multirun=True)
    assert problem.startswith("sparsity=99")


def test_a_folder_that_is_no_configuration_is_refused_with_the_way_out(own, tmp_path):
    with pytest.raises(ValueError, match="did you mean .*conf"):
        folder_of(str(own))
    with pytest.raises(ValueError, match="not a folder"):
        folder_of(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="PYTHONPATH"):
        folder_of("pkg://no_such_package.conf")
    with pytest.raises(ValueError, match="pkg://PACKAGE"):
        folder_of("https://example.org/conf")
    assert folder_of(f"file://{own / 'conf'}") == own / "conf"


def test_a_choice_behind_another_of_its_name_is_refused(own):
    (own / "conf" / "pruner" / "wanda.yaml").write_text("name: wanda\n", encoding="utf-8")
    (problem,) = shadowed([own / "conf"])
    assert "wanda.yaml" in problem
    assert "another name" in problem


def test_the_name_of_a_built_in_choice_is_refused_under_another(own):
    # Tables tell pruners apart by their names.
    path = own / "conf" / "pruner" / "last_blocks.yaml"
    renamed = path.with_name("mine.yaml")
    renamed.write_text(
        path.read_text(encoding="utf-8").replace("name: last_blocks", "name: shortgpt"), encoding="utf-8"
    )
    # Files of choices are listed once a process: a folder that is new is looked into.
    search_also([path.parents[1], own / "conf" / ".." / "conf"])
    (problem,) = problems(["model=random", "pruner=mine", "sparsity=1"], multirun=False)
    assert "pruner.name=shortgpt is the name of another choice" in problem


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        (
            "pruner/mine",
            "defaults: [wandaa]",
            "its defaults name wandaa, which pruner does not have; did you mean wanda?",
        ),
        (
            "pruner/mine",
            "defaults: [/tasks: offline]",
            "its defaults name a group tasks, which does not exist; did you",
        ),
        ("pruner/mine", "defaults: wanda", "its defaults are 'wanda'; write a list, such as [wanda]"),
        ("pruner/mine", "defaults: [mine]", "its defaults lead back to itself"),
        ("pruner/mine", "- a", "holds ['a']; write keys with values"),
        ("pruner/mine", "name: ${nothing", "correct {path}"),
        (
            "measures/mine",
            "defaults: [ckaa]",
            "its defaults name ckaa, which measures does not have; did you mean cka?",
        ),
        ("experiment/mine", "defaults: [{override /pruner: wandaa}, _self_]", "its defaults name wandaa, which pruner"),
        ("experiment/mine", "sweep: [a]", "correct {path}"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_way_out(file, text, why, tmp_path):
    path = tmp_path / f"{file}.yaml"
    path.parent.mkdir()
    path.write_text(f"# @package _global_\n{text}\n" if "experiment" in file else text, encoding="utf-8")
    search_also([tmp_path])
    word = "measure.extra=[mine]" if "measures" in file else f"{path.parent.name}=mine"
    (problem,) = problems(expand([word, "model=random"]), multirun=False)
    assert str(path) in problem and why.format(path=path) in problem
    assert ".;" not in problem
