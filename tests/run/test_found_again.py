"""What a job or a sweep that finds everything leaves alone, and what makes it work again after all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pipeline.config.figures import by_default
from pipeline.model.sources.random import RandomModel
from pipeline.plot import drawing
from pipeline.plot.drawing import FigureResult, draw
from pipeline.report import page, write
from pipeline.run.expected import finished_before
from pipeline.run.job import run_job
from pipeline.store.records import FAILED, OK, OUTCOME, JobRecord

ONE = replace(by_default(), select=["fig01"])
Job = Callable[..., JobRecord]


@pytest.fixture
def job(make_settings, tmp_path) -> Job:
    """``job()`` runs a tiny job to its good end and gives its record."""

    def run(*overrides: str) -> JobRecord:
        settings = make_settings("pruner=wanda", "sparsity=0.5", "stages=[prune,evaluate]", *overrides)
        record = run_job(settings, "test", tmp_path)
        assert record.status == OK, record.error
        return record

    return run


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("this was not to be done again")


def states(outputs: Path) -> dict[str, tuple[int, int]]:
    found = {path.name: path.stat() for path in (outputs / "tables").glob("*.parquet") if path.stem != "jobs"}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in found.items()}


def test_a_job_that_is_found_changes_only_its_time(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, outputs = job(), tmp_path / "outputs"
    jobs, before = pd.read_parquet(outputs / "tables" / "jobs.parquet"), states(outputs)
    assert {"scores.parquet", "items.parquet", "comparisons.parquet"} <= before.keys()
    with monkeypatch.context() as patch:
        patch.setattr(RandomModel, "load", refuse)
        patch.setattr(RandomModel, "tokenizer", refuse)
        again = job()
    assert (again.built, again.settings, again.started) == ([], first.settings, first.started)
    now = pd.read_parquet(outputs / "tables" / "jobs.parquet")
    assert states(outputs) == before
    assert now.finished.max() > jobs.finished.max()
    pd.testing.assert_frame_equal(now.drop(columns="finished"), jobs.drop(columns="finished"))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"of another program")])
def test_a_table_that_is_gone_or_changed_is_written_again(
    job: Job, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    job()
    path = tmp_path / "outputs" / "tables" / "scores.parquet"
    before = pd.read_parquet(path)
    damage(path)
    assert not job().built
    pd.testing.assert_frame_equal(pd.read_parquet(path), before)


@pytest.mark.usefixtures("no_pictures")
def test_figures_are_prepared_again_only_where_something_has_changed(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = tmp_path / "outputs"
    prepared: list[str] = []
    whole = drawing._draw_all
    monkeypatch.setattr(drawing, "_draw_all", lambda *given: prepared.append("once") or whole(*given))

    def drawn() -> FigureResult:
        (found,) = draw(outputs, form=ONE)
        return found

    job()
    first = drawn()
    job()
    again = drawn()
    assert (len(prepared), first.drawn, again.drawn) == (1, True, False)
    assert replace(again, drawn=True) == first
    # A file, the form, a further job.
    again.paths[0].write_bytes(b"of another program")
    assert drawn().drawn and len(prepared) == 2
    draw(outputs, form=replace(ONE, page=5.0))
    assert len(prepared) == 3
    drawn()
    job("sparsity=0.25")
    assert drawn().drawn and len(prepared) == 5


@pytest.mark.usefixtures("no_pictures")
def test_the_page_is_written_again_only_where_something_has_changed(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = tmp_path / "outputs"
    written: list[str] = []
    whole = page._render
    monkeypatch.setattr(page, "_render", lambda given: written.append("once") or whole(given))
    job()
    path = write(outputs, form=ONE)
    content = path.read_bytes()
    job()
    assert write(outputs, form=ONE) == path and len(written) == 1
    path.write_text("of another program")
    write(outputs, form=ONE)
    assert path.read_bytes() == content and len(written) == 2
    job("sparsity=0.25")
    write(outputs, form=ONE)
    assert path.read_bytes() != content and len(written) == 3


def test_a_sweep_expects_to_find_what_earlier_commands_have_finished(tmp_path: Path) -> None:
    def leave(command: str, number: int | str, status: str, *overrides: str) -> None:
        folder = tmp_path / command / str(number)
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text("\n".join(f"- {word}" for word in overrides))
        JobRecord("", "", "random", "wanda", "0.5", status=status).write(folder / OUTCOME)

    def expected(*sparsities: str) -> bool:
        jobs = [("pruner=wanda", f"sparsity={own}") for own in sparsities]
        return finished_before(tmp_path / "3", jobs)

    leave("1", 0, OK, "pruner=wanda", "sparsity=0.5")
    leave("1", 1, FAILED, "pruner=wanda", "sparsity=2:4")
    leave("2", 0, OK, "sparsity=0.2", "pruner=wanda")
    leave("3", 0, OK, "pruner=wanda", "sparsity=0.4")
    leave("0", "", OK, "pruner=wanda", "sparsity=0.1")  # of a single job
    assert expected("0.5", "0.2", "0.1")
    assert not expected("0.5", "2:4")
    assert not expected("0.4")
