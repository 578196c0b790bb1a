"""Entry point of the command line: check, run the job or the sweep, close."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import hydra

from pipeline.check.command_line import problems
from pipeline.check.hydra_settings import MULTIRUN, VERSION
from pipeline.check.launcher import launcher_problems
from pipeline.check.notes import notes
from pipeline.check.plugins import uses_plugin
from pipeline.check.sweeper import chooses_trials, sweeper_of, sweeper_problems
from pipeline.common.errors import plain
from pipeline.common.quiet import quiet_libraries
from pipeline.common.stopping import Stopped, noticing, stoppable
from pipeline.common.streams import tolerate_lost_output
from pipeline.common.version import version_line
from pipeline.config.by_name import VERSION_BASE
from pipeline.config.search_path import CONF
from pipeline.run.arguments import CommandLine, read
from pipeline.run.compose import task
from pipeline.run.drawing_process import drawing_process
from pipeline.run.launchers import register
from pipeline.run.launchers.base import CannotRun
from pipeline.run.sweep import SweepSummary, close


def main() -> int:
    """Run the command line. Returns 2 if it is bad, 1 if a job failed, 128 plus the signal if stopped, else 0."""
    # On a full disk, log handlers would print a traceback for every line.
    logging.raiseExceptions = False
    tolerate_lost_output()
    try:
        with stoppable(), drawing_process():
            return _run()
    except KeyboardInterrupt as stop:
        print("interrupted: finished stages are stored; run the same command again to resume", file=sys.stderr)
        return stop.status if isinstance(stop, Stopped) else 130


def _run() -> int:
    if VERSION in sys.argv[1:]:
        print(version_line())
        return 0
    given = read(sys.argv[1:])
    quiet_libraries()
    found = [*given.problems] if given.shows else _problems_of(given)
    if found:
        return _refused(found)
    for note in () if given.shows else notes(given.overrides, given.multirun):
        print(f"note: {note}", file=sys.stderr)
    if given.dry_run:
        # Deferred: it loads what jobs load.
        from pipeline.run.dry_run import show_plan

        return show_plan(given.overrides)
    # The argument parser takes overrides as one block: a flag between them would be an error.
    sys.argv[1:] = sorted(given.words, key=lambda word: word not in MULTIRUN)
    # Otherwise Hydra would print errors itself and exit.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name="config")(task)()
    except KeyboardInterrupt:
        if SweepSummary.folder is not None and SweepSummary.outcomes:
            # Further signals are only noted: the table takes a moment, and is all that there is to see.
            with noticing():
                close(SweepSummary.outcomes, SweepSummary.folder, SweepSummary.outputs, stopped=True)
        raise
    except Exception as error:
        return _broken_off(error, given)
    if SweepSummary.folder is None:
        return 0
    return close(SweepSummary.outcomes, SweepSummary.folder, SweepSummary.outputs)


def _broken_off(error: Exception, given: CommandLine) -> int:
    """Say why Hydra could not do what was asked, and show what there is. Returns the exit status; may raise again."""
    if given.shows:
        # What cannot be shown cannot be run either. The value of a flag, such as `job`, is no setting.
        settings = tuple(word for word in given.overrides if "=" in word)
        return _refused(_problems_of(replace(given, overrides=settings)) or [plain(error)])
    if isinstance(error, CannotRun | OSError):
        why = str(error) if isinstance(error, CannotRun) else plain(error)
        print(f"the jobs could not be run: {why}", file=sys.stderr)
        return 1
    if not uses_plugin(given.overrides):
        raise error
    SweepSummary.gather()
    # A launcher or sweeper of another package: what its jobs have left is shown all the same.
    print(f"the sweep ended early: {plain(error)}", file=sys.stderr)
    if SweepSummary.folder is not None and SweepSummary.outcomes:
        close(SweepSummary.outcomes, SweepSummary.folder, SweepSummary.outputs, stopped=True)
    return 1


def _refused(found: Sequence[str]) -> int:
    """Print the problems of a command line. Returns its exit status."""
    print(f"{len(found)} problem{'s' * (len(found) > 1)} in the configuration:", file=sys.stderr)
    print("\n".join(f"  - {problem}" for problem in found), file=sys.stderr)
    return 2


def _problems_of(given: CommandLine) -> list[str]:
    """Return a sentence for each problem of a command line that runs jobs."""
    overrides, multirun = given.overrides, given.multirun
    found = [*given.problems, *launcher_problems(overrides), *sweeper_problems(overrides, multirun)]
    found += problems(overrides, multirun)
    if given.dry_run and chooses_trials(overrides):
        found.append(
            f"--dry-run: {sweeper_of(overrides)} chooses its jobs by results, so that none can be listed before"
        )
    return found
