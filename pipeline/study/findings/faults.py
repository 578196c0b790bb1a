"""Finding of `make faults`: runs it, which takes half an hour, and reads what it counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pipeline.study.findings.source import Measured, NoResults, Source, Values, measured_now
from pipeline.study.findings.table import ROOT, Grid

# What a reader is told of each kind of fault, in the order of the lines that are printed.
_COLUMNS = ("fault", "times", "results compared", "lost", "wrong", "files left over", "other problems")
_LINE = re.compile(
    r"(?m)^(?P<fault>.+): (\d+) times, (\d+) results compared: (\d+) lost, (\d+) wrong, (\d+) files left over, "
    r"(\d+) other problems$"
)
_AT_ONCE = re.compile(r"(?m)^  where: computed (\d+), to compute (\d+)$")
# It comes first, and there is no fault in it.
_UNDISTURBED = "undisturbed"


def read(_: Path) -> Measured:
    """Run the sweeps with faults, and return what was lost or wrong after each kind of them."""
    command = [sys.executable, "-m", "fault_run"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    printed = ""
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout or ():
            # It takes half an hour, so what it does is shown on the way.
            print(line, end="", file=sys.stderr)
            printed += line
    values = counted(printed)
    if not values:
        raise NoResults(f"make faults ended with status {run.returncode} and counted nothing; it says why")
    return measured_now(values, {})


def counted(printed: str) -> Values:
    """Return the counts of each kind of fault as a table; empty if the run did not come to its end."""
    rows = [list(found.groups()) for found in _LINE.finditer(printed) if found["fault"] != _UNDISTURBED]
    done = _AT_ONCE.search(printed)
    if not rows or done is None:
        return {}
    return {
        "counts": Grid(list(_COLUMNS), [[f"`{name}`" if "-" in name else name, *numbers] for name, *numbers in rows]),
        "at_once": f"{done[1]} artifacts were computed where {done[2]} had to be",
    }


SOURCES = {"faults": Source("make faults", read, slow=True)}
