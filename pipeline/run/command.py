"""Entry point of the command line: check, run the job or the sweep, close. The only file that sees argv."""

from __future__ import annotations

import logging
import os
import sys

import hydra

from pipeline.check.command_line import problems
from pipeline.check.hydra_settings import flag_problems
from pipeline.check.launcher import launcher_problems
from pipeline.check.notes import notes
from pipeline.common.errors import plain
from pipeline.common.quiet import quiet_libraries
from pipeline.common.stopping import Stopped, noticing, stoppable
from pipeline.common.streams import tolerate_lost_output
from pipeline.config.choices import CONF
from pipeline.config.experiment import expand
from pipeline.run.compose import VERSION_BASE, job
from pipeline.run.launchers import register
from pipeline.run.launchers.base import CannotRun
from pipeline.run.sweep import SweepSummary, close

_MULTIRUN = ("-m", "--multirun")
# These only print; hydra handles them before any job.
_INFORMATION = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


def main() -> int:
    """Run the command line. Returns 2 if it is bad, 1 if a job failed, 128 plus the signal if stopped, else 0."""
    # On a full disk, log handlers would print a traceback for every line.
    logging.raiseExceptions = False
    tolerate_lost_output()
    try:
        with stoppable():
            return _run()
    except KeyboardInterrupt as stop:
        print("interrupted: finished stages are stored; run the same command again to resume", file=sys.stderr)
        return stop.status if isinstance(stop, Stopped) else 130


def _run() -> int:
    arguments = expand(sys.argv[1:])
    quiet_libraries()
    found = flag_problems(arguments)
    told: list[str] = []
    if not any(argument.split("=")[0] in _INFORMATION for argument in arguments):
        overrides = [argument for argument in arguments if not argument.startswith("-")]
        multirun = any(argument in _MULTIRUN for argument in arguments)
        found += [*launcher_problems(overrides), *problems(overrides, multirun)]
        told = notes(overrides, multirun)
    if found:
        print(f"{len(found)} problem{'s' * (len(found) > 1)} in the configuration:", file=sys.stderr)
        print("\n".join(f"  - {problem}" for problem in found), file=sys.stderr)
        return 2
    for note in told:
        print(f"note: {note}", file=sys.stderr)
    # The argument parser takes overrides as one block: a flag between them would be an error.
    sys.argv[1:] = sorted(arguments, key=lambda argument: argument not in _MULTIRUN)
    # Otherwise Hydra would print errors itself and exit.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name="config")(job)()
    except KeyboardInterrupt:
        if SweepSummary.folder is not None and SweepSummary.outcomes:
            # Further signals are only noted: the table takes a moment, and is all that there is to see.
            with noticing():
                close(SweepSummary.outcomes, SweepSummary.folder, SweepSummary.outputs, stopped=True)
        raise
    except (CannotRun, OSError) as error:
        why = str(error) if isinstance(error, CannotRun) else plain(error)
        print(f"the jobs could not be run: {why}", file=sys.stderr)
        return 1
    if SweepSummary.folder is None:
        return 0
    return close(SweepSummary.outcomes, SweepSummary.folder, SweepSummary.outputs)
