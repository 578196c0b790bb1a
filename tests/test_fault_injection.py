"""A few of the faults of `make faults`: what is killed, damaged, shared or cut off from its disk ends up the same."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_run import Faults, Findings

# Chance chooses the moments; a failure is repeated by the same number.
SEED = 7


@pytest.fixture(scope="module")
def faults() -> Iterator[Faults]:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    made = Faults(folder, SEED, ("pruner=sparsegpt", "sparsity=0.5"))
    # One: those at once are compared with it, elsewhere.
    check(made.undisturbed(1))
    yield made
    shutil.rmtree(folder)


def check(found: Findings) -> None:
    assert found.bad == 0, "\n".join(found.lines())
    assert found.compared > 30 * (found.fault != "full disk")


def test_killed_sweeps_lose_nothing(faults):
    check(faults.kills(2))


def test_damaged_files_are_told_and_made_again(faults):
    check(faults.corruptions(4, at_once=4))


def test_sweeps_at_once_share_their_work(faults):
    check(faults.together(2))


def test_of_sweeps_at_once_one_may_be_killed(faults):
    check(faults.together_and_killed(2))


def test_on_a_full_disk_nothing_is_lost(faults):
    check(faults.full_disks(1))
