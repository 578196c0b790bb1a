"""Drawing of figures from the tables of an output folder."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.errors import plain
from pipeline.common.parents import end_with_parent
from pipeline.config.choices import choices_of
from pipeline.config.figures import by_default, files_of
from pipeline.config.schema import EXPERIMENT, FiguresConfig
from pipeline.plot.base import Figure, Selection
from pipeline.plot.discovery import check_names, resolve
from pipeline.plot.drawn_before import FigureResult, recalled, remember, state_of
from pipeline.plot.figure_csv import to_csv
from pipeline.plot.variant_notes import mixers_note, replicates_note
from pipeline.tables.choice import Choice, choose
from pipeline.tables.read import Tables, load
from pipeline.tables.stored import MissingData

if TYPE_CHECKING:
    from pipeline.plot import render

# How many other settings a caption names at most.
NAMED = 3
# Fewer figures than these are drawn sooner than processes are ready for them.
MANY = 4
# So many new objects are looked through for garbage at once while figures are drawn: those of fifty figures.
GARBAGE = 500_000


def draw(
    outputs: Path,
    names: Sequence[str] | None = None,
    settings: str | None = None,
    *,
    force: bool = False,
    form: FiguresConfig | None = None,
    processes: int = 1,
) -> list[FigureResult]:
    """Draw figures into `outputs/figures` from `outputs/tables`, leaving those that are up to date.

    Those for a paper are in `outputs/figures/paper`. A figure of the user's own that fails keeps no other from being
    drawn.

    Args:
        outputs: the folder that holds `tables/`.
        names: figures by name or number ("fig01"); by default those that the form selects.
        settings: the settings of a group of comparable jobs, in full or any part that only one group has; by
            default those of the newest job.
        force: draw figures again even if they are up to date.
        form: style, widths and folder of further figures; by default that of `conf/config.yaml`.
        processes: how many may draw at once. They are forked: give more than one only in a process that has started
            nothing that a fork loses, such as torch's threads.

    Raises:
        UnknownFigure: if no figure has one of the names.
        NoTables: if there are no tables.
        UnknownSettings: if no settings match, or several.
    """
    form = form or by_default()
    check_names(names or form.select, form.include)
    choice, folder = choose(outputs, settings), outputs / "figures"
    if names or force:
        return _draw_all(resolve(names or form.select, form.include), outputs, choice, force, form, processes)
    state = state_of(outputs, choice, form)
    if (known := recalled(folder, state)) is not None:
        return known
    results = _draw_all(resolve(form.select, form.include), outputs, choice, force, form, processes)
    remember(folder, state, results)
    return results


def _draw_all(
    wanted: Mapping[str, Figure], outputs: Path, choice: Choice, force: bool, form: FiguresConfig, processes: int
) -> list[FigureResult]:
    # Deferred, as below: what draws takes a second to import. Before the processes are forked, so that each has it.
    from pipeline.plot import render  # noqa: F401

    one = partial(_one_of, wanted, outputs / "figures", load(outputs, choice), force, form)
    if processes == 1 or len(wanted) < MANY:
        with _little_search_for_garbage():
            return [one(name) for name in wanted]
    with ProcessPoolExecutor(
        min(processes, len(wanted)),
        multiprocessing.get_context("fork"),
        initializer=_begin,
        initargs=(one, os.getpid()),
    ) as pool:
        return list(pool.map(_drawn, wanted))


def cores() -> int:
    """Return how many processes to draw in: the processors that this one may use; 1 where a fork is not safe."""
    if "torch" in sys.modules or not hasattr(os, "sched_getaffinity"):
        return 1
    return len(os.sched_getaffinity(0))


@contextmanager
def _little_search_for_garbage() -> Iterator[None]:
    """Look for garbage seldom: a figure is made of many small objects, and torch has many that are looked through."""
    before = gc.get_threshold()
    gc.set_threshold(GARBAGE)
    try:
        yield
    finally:
        gc.set_threshold(*before)


# Of a forked process: draws a figure by name. It is inherited, as tables and figures cannot be sent.
_own_one: list[Callable[[str], FigureResult]] = []


def _begin(one: Callable[[str], FigureResult], parent: int) -> None:
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends all
    # Nothing of what was inherited becomes garbage, and a figure is made of many small objects that stay.
    gc.freeze()
    gc.set_threshold(GARBAGE)
    _own_one.append(one)


def _drawn(name: str) -> FigureResult:
    return _own_one[0](name)


def _one_of(
    wanted: Mapping[str, Figure], folder: Path, tables: Tables, force: bool, form: FiguresConfig, name: str
) -> FigureResult:
    """Draw one of the figures. An error of a file of the user's own is part of the result."""
    from pipeline.plot import render

    files = render.FigureFiles(folder, name, form)
    own = files_of(form.include).get(name)
    try:
        return _draw_one(files, wanted[name], tables, force)
    except MissingData as reason:
        result = FigureResult(name, missing=f"{reason}; to get the data, run: {command_of(name)}")
    except (Exception, SystemExit) as error:
        if own is None:
            raise
        result = FigureResult(name, missing=f"{plain(error)}; correct {own}", failed=True)
    files.remove()  # an older figure would show other settings
    return result


def _draw_one(files: render.FigureFiles, figure: Figure, tables: Tables, force: bool) -> FigureResult:
    from pipeline.plot import render

    selection = figure.select(tables)
    caption = _caption(figure, selection, tables)
    content = render.Content(figure, to_csv(selection.data), selection.title, caption)
    stale = force or not files.are_current(content)
    if stale:
        files.write(content)
    return FigureResult(files.name, tuple(files.paths.values()), caption, drawn=stale, title=selection.title)


def command_of(name: str) -> str:
    """Return the command that makes the data of a figure: the experiment named after its number.

    That of a figure of the user's own is in a configuration folder of theirs.
    """
    experiment = name.partition("_")[0]
    own = "" if experiment in choices_of(EXPERIMENT) else "--config-dir=DIR "
    return f"python -m pipeline.main {own}-m experiment={experiment}"


def _caption(figure: Figure, selection: Selection, tables: Tables) -> str:
    models = selection.data.get("model")
    shown = (
        {peer.choice.line for peer in tables.peers.values()} if models is not None and models.nunique() > 1 else set()
    )
    others = [line for line in tables.choice.others if line not in shown]
    left = f" Not drawn: other settings, {'; '.join(others[:NAMED])}" if others else ""
    more = f"; and {len(others) - NAMED} more" if len(others) > NAMED else ""
    notes = [
        *selection.notes,
        *mixers_note(tables.mixers(), selection.data),
        *replicates_note(tables.jobs, selection.data),
    ]
    notes.append(f"Settings: {tables.choice.line}.")
    return " ".join(notes) + (f"{left}{more}." if left else "")
