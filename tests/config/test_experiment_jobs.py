"""Jobs of an experiment: sparsities and options that it gives to some of its pruners."""

from __future__ import annotations

import pytest

from pipeline.config.experiment import each_job
from pipeline.run.dry_run import jobs_of

EXPERIMENT = {"sparsity_of": {"one": [1, 2], "two": 0.5}, "options_of": {"one": {"beam": 4, "lazy": True}}}

OPTIONS = ["pruner.beam=4", "pruner.lazy=True"]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (["pruner=one"], [[*OPTIONS, "sparsity=1"], [*OPTIONS, "sparsity=2"]]),
        ([], [[*OPTIONS, "sparsity=1"], [*OPTIONS, "sparsity=2"]]),
        (["pruner=one", "sparsity=7", "pruner.beam=1"], [["pruner.lazy=True"]]),
        (["pruner=two"], [[]]),
        (["pruner=three", "seed=1"], [[]]),
    ],
)
def test_a_job_gets_what_its_experiment_says_about_its_pruner(job, expected):
    assert each_job(job, EXPERIMENT, "one") == [[*job, *more] for more in expected]


def test_experiments_of_the_paper_give_options():
    jobs = jobs_of(["experiment=fig29"])
    assert jobs_of(["experiment=fig29", "pruner=divergence,divergence_estimate"]) == [
        ["experiment=fig29", "pruner=divergence", "pruner.lazy=True"],
        ["experiment=fig29", "pruner=divergence_estimate"],
    ]
    assert len(jobs) == 1
