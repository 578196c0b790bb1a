"""Sentences on what stored results were computed with."""

from __future__ import annotations

from typing import Any

from pipeline.store.origins import PACKAGES, changed_since, differences, facts_of, provenance, shown_together
from pipeline.store.provenance import origin


def made(**changes: Any) -> dict[str, Any]:
    """An origin as a manifest holds it."""
    packages = {"torch": "2.12", "transformers": "5.20", "safetensors": "0.8", **changes.pop("packages", {})}
    return {
        "commit": "1a2b3c4d5e6f",
        "dirty": False,
        "python": "3.11.9",
        "packages": packages,
        "system": "Linux-6",
        "host": "node7",
        "processor": "Xeon",
        "gpus": [],
        **changes,
    }


NOW = made(packages={"torch": "2.13", "transformers": "5.23"})


def test_what_can_change_a_number_is_told_and_nothing_else():
    assert provenance({"decision": made(gpus=["H100, 81559 MiB, 550.1"] * 2)}) == {
        "decision": {
            "commit": "1a2b3c4",
            "Python": "3.11.9",
            "torch": "2.12",
            "transformers": "5.20",
            "processor": "Xeon",
            "GPU": "H100",
        }
    }
    same = made(host="node8", system="Linux-7", packages={"safetensors": "0.9"}, cores=4)
    assert changed_since({"evaluation": same}, made()) is None
    assert differences([same, made()]) == []
    assert shown_together([same, made()]) is None
    assert shown_together([]) is None


def test_every_package_that_is_told_is_in_an_origin_of_this_process():
    assert set(PACKAGES) <= set(origin()["packages"])
    assert facts_of(origin())["torch"] == origin()["packages"]["torch"]


def test_old_scores_are_told_with_what_is_here_now():
    assert changed_since({"evaluation": made()}, NOW) == (
        "scores were computed with torch 2.12 and transformers 5.20 (now 2.13, 5.23): rerun in a new outputs folder "
        "to compare"
    )
    assert changed_since({"evaluation": NOW, "decision": NOW}, NOW) is None


def test_roles_that_differ_alike_are_told_together():
    origins = {"decision": made(), "evaluation": NOW, "perplexity": made(), "measures": made(python="3.12.1")}
    assert changed_since(origins, NOW) == (
        "decision and perplexity were computed with torch 2.12 and transformers 5.20 (now 2.13, 5.23); "
        "measures with Python 3.12.1, torch 2.12 and transformers 5.20 (now 3.11.9, 2.13, 5.23): "
        "rerun in a new outputs folder to compare"
    )


def test_code_and_kinds_of_machine_count():
    assert changed_since({"decision": made(commit="ffffffff00", dirty=True)}, made()) == (
        "decision was computed with commit fffffff with changes (now 1a2b3c4): rerun in a new outputs folder to compare"
    )
    gpu = made(gpus=["NVIDIA H100, 81559 MiB, 550"], processor="EPYC")
    assert changed_since({"decision": gpu}, made()) == (
        "decision was computed with processor EPYC and GPU NVIDIA H100 (now Xeon, none): rerun in a new outputs folder "
        "to compare"
    )
    # Another driver, or more GPUs of the same kind, are the same numbers.
    assert differences([gpu, gpu | {"gpus": ["NVIDIA H100, 81559 MiB, 560"] * 4}]) == []


def test_a_manifest_without_an_origin_does_not_pass_for_the_present():
    assert changed_since({"decision": {}}, NOW) == (
        "decision was computed with unrecorded versions: rerun in a new outputs folder to compare"
    )
    assert "torch 2.13 (1 job), not recorded (1 job)" in differences([{}, NOW])


def test_jobs_that_are_shown_together():
    assert differences([made(), NOW, made(), made()]) == [
        "torch 2.12 (3 jobs), 2.13 (1 job)",
        "transformers 5.20 (3 jobs), 5.23 (1 job)",
    ]
    newer = made(packages={"transformers": "5.23"})
    assert shown_together([made(), newer, made(), made()]) == (
        "versions differ among the jobs shown: transformers 5.20 (3 jobs), 5.23 (1 job)"
    )
    assert shown_together(iter([made(), made(processor="EPYC")])) == (
        "machines differ among the jobs shown: processor EPYC (1 job), Xeon (1 job)"
    )
    both = shown_together([newer, made(processor="EPYC")])
    assert both is not None
    assert both.startswith(
        "versions and machines differ among the jobs shown: transformers 5.20 (1 job), 5.23 (1 job); "
    )
