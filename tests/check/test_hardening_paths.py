"""Paths of a configuration: what is written touches nothing that is read, and no path is too odd for a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.check.command_line import problems
from pipeline.config.choices import CONF


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with something of each kind to read, and a link to each."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("A text. " * 50)
    (tmp_path / "texts" / "mine.yaml").write_text("task: mine\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    for name in ("texts", "model"):
        (tmp_path / f"link-to-{name}").symlink_to(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("link", ["", "link-to-"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["calibration=file", "calibration.path={texts}", "outputs={texts}/results"], "is inside calibration.path="),
        (["calibration=file", "calibration.path={texts}", "outputs={texts}"], "which is an input"),
        (["perplexity.text={texts}/a.txt", "export.path={texts}"], "contains perplexity.text="),
        (
            ["calibration=file", "calibration.path={texts}", "export.path={texts}"],
            "is the path given as calibration.path",
        ),
        (
            ["task=lm_eval", "task.names=[mine]", "task.include={texts}", "export.path={texts}/new"],
            "is inside task.include=",
        ),
        (["model=hf", "model.path={model}", "export.path={model}"], "is the folder that the model is loaded from"),
        (["model=hf", "model.path={model}", "outputs={model}/results"], "is inside model.path="),
        (["outputs={texts}/o", "export.path={texts}/o"], "is or contains outputs="),
        (["outputs={texts}/o", "export.path={texts}/o/store/x"], "is inside the results"),
        (["outputs={texts}/o", "probes={texts}/o/jobs/x.txt"], "whose contents may be deleted"),
    ],
)
def test_what_is_written_never_touches_what_is_read(place, words, expected, link):
    """The first place is given through a link, the others as they are; nothing is written for a check."""
    (place / "texts" / "o" / "jobs").mkdir(parents=True)
    (place / "texts" / "o" / "jobs" / "x.txt").write_text("A prompt\n")
    before = sorted(place.rglob("*"))
    given_words, unused = [], link
    for word in words:
        filled = word.format(texts=place / f"{unused}texts", model=place / f"{unused}model")
        unused = unused if filled == word else ""
        given_words.append(filled)
    if link:
        given_words.reverse()
    assert any(expected in problem for problem in problems(given_words, multirun=False))
    assert sorted(place.rglob("*")) == before


def test_exports_keep_away_from_what_is_no_model(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for folder in ("/", str(CONF.parent), str(home), str(tmp_path), "~"):
        assert any("contains more than" in problem for problem in problems([f"export.path='{folder}'"], False)), folder
    assert any("source tree" in problem for problem in problems([f"export.path={CONF}/x"], False))
    assert problems([f"export.path={home}/models/one"], False) == []


def test_an_export_below_outputs_is_read_again(tmp_path):
    """Also from among the results, where it stays as it is; anything else from there is refused."""
    model = tmp_path / "report" / "mine"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "llama"}')
    words = ["model=hf", f"model.path={model}", f"outputs={tmp_path}"]
    assert any("contents may be deleted" in problem for problem in problems(words, False))
    (model / "pruning.json").write_text("{}")
    assert not any("contents may be deleted" in problem for problem in problems(words, False))


@pytest.mark.parametrize("key", ["outputs", "export", "probes", "calibration.path", "model.path", "perplexity.text"])
@pytest.mark.parametrize("value", ["x" * 300, "~nobody-here/x", "a\tb", "loop", "./pipe/x", "broken"])
def test_no_path_is_too_odd_for_a_sentence(tmp_path, monkeypatch, key, value):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("broken").symlink_to("nowhere")
    os.mkfifo("pipe")
    group = {"calibration.path": ["calibration=file"], "model.path": ["model=hf"]}.get(key, [])
    found = problems([*group, f"{key}='{value}'"], False)
    assert found
    assert not any("cannot be checked" in problem for problem in found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o000)
    assert problems([f"outputs={tmp_path}/closed/x"], False) != []
