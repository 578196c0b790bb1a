"""Words of the command line, as Hydra's users write them."""

from __future__ import annotations

import pytest
from own_configuration import own_folder

from pipeline.config.search_path import folders, search_also
from pipeline.run.arguments import read


@pytest.fixture(autouse=True)
def _alone():
    yield
    search_also([])


def test_an_experiment_is_chosen_with_and_without_a_plus():
    plain, plus = read(["-m", "experiment=fig03", "seed=1"]), read(["-m", "+experiment=fig03", "seed=1"])
    assert plus == plain
    assert any(word.startswith("pruner=") for word in plain.overrides)


def test_what_only_prints_is_left_as_it_is():
    # A sweep written out would be refused by --cfg.
    given = read(["--cfg", "job", "experiment=fig03"])
    assert given.shows
    assert given.words == ("--cfg", "job", "experiment=fig03")


@pytest.mark.parametrize("spelling", ["--config-dir {}", "--config-dir={}", "-cd {}", "hydra.searchpath=[{}]"])
def test_a_folder_of_ones_own_is_given_in_hydras_ways(spelling, tmp_path):
    conf = own_folder(tmp_path) / "conf"
    given = read(["-m", *spelling.format(conf).split(" "), "+experiment=own"])
    assert given.problems == ()
    assert folders()[1:] == (conf,)
    # All ways reach Hydra as one, so that jobs in other processes find the folder too.
    assert f'hydra.searchpath=["file://{conf}"]' in given.words
    assert "pruner=last_blocks,magnitude" in given.overrides


def test_problems_with_the_folder_are_told_with_the_others(tmp_path):
    given = read(["--config-dir", str(tmp_path / "nowhere"), "--no-such-flag"])
    assert len(given.problems) == 2


def test_a_dry_run_is_no_word_for_hydra():
    given = read(["--dry-run", "-m", "seed=1,2"])
    assert given.dry_run
    assert given.words == ("-m", "seed=1,2")
