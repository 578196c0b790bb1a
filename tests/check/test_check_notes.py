"""What a command line says in vain is told once, before the jobs start, and stops nothing."""

from __future__ import annotations

import pytest
from forked import run_forked

from pipeline.check.notes import notes

ONE_JOB = "so the jobs that differ only in it are the same job"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pruner=rtn", "sparsity=0.3"], ["sparsity=0.3 is ignored by pruner=rtn: it takes no sparsity"]),
        (["pruner=awq", "sparsity=2:4"], ["sparsity=2:4 is ignored by pruner=awq: it takes no sparsity"]),
        (
            ["pruner=rtn,awq", "sparsity=0.2,0.4"],
            [f"sparsity=0.2,0.4 is ignored by pruner=rtn,awq: they take no sparsity, {ONE_JOB}, 2 times"],
        ),
        (
            ["pruner=wanda,dense", "sparsity=0.2,0.4,0.6"],
            [f"sparsity=0.2,0.4,0.6 is ignored by pruner=dense: it takes no sparsity, {ONE_JOB}, 3 times"],
        ),
        (["pruner=wanda", "sparsity=0.3,0.30"], [f"sparsity=0.3,0.3 is one sparsity, 0.3, {ONE_JOB}, 2 times"]),
        (["pruner=wanda", "sparsity=2:4,2of4"], [f"sparsity=2:4,2of4 is one sparsity, 2:4, {ONE_JOB}, 2 times"]),
        (["pruner=wanda", "sparsity=range(0.1,0.6,0.1)"], []),
        (["pruner=wanda,shortgpt", "sparsity=0.2,0.4"], []),
        (["pruner=rtn,awq"], []),
        (["pruner=rtn", "sparsity=0"], []),
        (["sparsity=0.3"], []),
        (["pruner=nothing", "sparsity=[1]"], []),
    ],
)
def test_what_is_said_in_vain_is_told(words, expected):
    assert notes(words, multirun=True) == expected


HALVES = "[copying,repetition,plurals,negation,questions] and [counting,past_tense,participles,antonyms,nationalities]"


@pytest.mark.parametrize(
    ("chosen", "asked", "related"),
    [
        ("[past_tense,negation]", "[participles,questions]", "past_tense,negation"),
        ("[past_tense,plurals]", "[antonyms,nationalities]", "past_tense"),
        ("[counting,past_tense]", "[copying,plurals]", ""),
        ("[past_tense,participles]", "[participles]", ""),  # not meant to be held out
    ],
)
def test_relatives_among_held_out_families_are_told(chosen, asked, related):
    found = notes(["calibration=shots", f"calibration.families={chosen}", f"task.families={asked}"], multirun=True)
    assert len(found) == bool(related)
    for said in found:
        assert f"but {related} have relatives" in said and said.endswith(f"halves without relatives: {HALVES}")


def test_a_note_stops_nothing_and_a_fine_command_line_has_none(tmp_path):
    """Once a command, before the first job, on standard error."""
    base = ("-m", "model=random", "stages=[prune]", f"outputs={tmp_path}", "wandb.mode=disabled", "pruner=rtn")
    done = run_forked(*base, "sparsity=0.2,0.4")
    assert done.returncode == 0
    assert done.stderr.count("note: ") == 1
    assert "note: sparsity=0.2,0.4 is ignored by pruner=rtn" in done.stderr
    refused = run_forked(*base, "sparsity=0.2,0.4", "dtype=bf16")
    assert refused.returncode == 2 and "note:" not in refused.stderr
