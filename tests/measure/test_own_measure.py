"""A measure of the user's own, as docs/extending/measure.md says: its blocks carried out, its tables read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from doc_pages import Page, start

from pipeline.results.__main__ import main as results


@pytest.fixture
def page(tmp_path, monkeypatch) -> Page:
    """The page, its folder written outside the clone."""
    written = Page("extending/measure.md")
    written.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return written


@pytest.mark.rotated("page of measures")
def test_the_page_makes_the_tables_that_it_promises(page, tmp_path, capsys):
    (command,), (script,) = page.commands, page.scripts
    done = start(command, tmp_path)
    assert done.returncode == 0, done.stderr
    exec(script, {})
    assert "total_variation" in capsys.readouterr().out
    measures = pd.read_parquet("outputs/tables/measures.parquet")
    distance = measures["total_variation"].to_numpy()
    # Pinsker's inequality, and one that holds the other way for any two distributions.
    assert (distance <= np.sqrt(measures["kl"] / 2) + 1e-9).all() and distance.max() > 1e-3
    sets = pd.read_parquet("outputs/tables/set_measures.parquet")
    assert set(sets["measure"]) == {"spread", "cka"} and (sets["value"] > 0).all()
    assert set(sets["protocol"]) == {"layer", "teacher_forced", "free_running"}
    assert results(["verify", "outputs=outputs"]) == 0


def test_a_mistake_is_refused_before_anything_is_loaded(page, tmp_path):
    (tmp_path / "conf/measures/spread.yaml").write_text("_target_: my_package.spread.Spraed\nname: spread\n")
    command = page.commands[0].replace("spread,cka", "spread,cak")
    done = start(command, tmp_path)
    assert done.returncode == 2
    assert "measure.extra: cak does not exist; did you mean cka?" in done.stderr
    assert "my_package.spread has no class Spraed" in done.stderr
