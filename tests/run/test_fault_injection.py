"""Faults of `make faults`, those that the commit chooses: what is killed, damaged, shared or cut off from its disk ends
up the same."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import SOME_FAULTS
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


ROUNDS = {
    "kills": lambda faults: faults.kills(2),
    "corruptions": lambda faults: faults.corruptions(4, at_once=4),
    "together": lambda faults: faults.together(2),
    "together_and_killed": lambda faults: faults.together_and_killed(2),
    "full_disks": lambda faults: faults.full_disks(1),
}


@pytest.mark.rotated("faults")
@pytest.mark.parametrize("fault", SOME_FAULTS)
def test_nothing_is_lost_or_wrong(faults, fault):
    check(ROUNDS[fault](faults))
