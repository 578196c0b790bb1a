"""Drawing of figures from the tables of an output folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import plain
from pipeline.config.choices import choices_of
from pipeline.config.schema import EXPERIMENT
from pipeline.plot import render
from pipeline.plot.base import Figure, Selection
from pipeline.plot.discovery import FailedFigure, resolve
from pipeline.tables.choice import choose
from pipeline.tables.read import Tables, load
from pipeline.tables.stored import MissingData

# How many other settings a caption names at most.
NAMED = 3


@dataclass(frozen=True)
class FigureResult:
    """Outcome of one figure.

    Attributes:
        name: `figNN_name`.
        paths: its PDF, PNG and CSV; empty if its data are missing.
        caption: its caption; empty if its data are missing.
        missing: why it was not drawn and how to make its data; None if its files are there.
        drawn: whether this call drew it; False if the files were up to date.
        title: its title; empty if its data are missing.
    """

    name: str
    paths: tuple[Path, ...] = ()
    caption: str = ""
    missing: str | None = None
    drawn: bool = False
    title: str = ""


def draw(
    outputs: Path, names: Sequence[str] | None = None, settings: str | None = None, *, force: bool = False
) -> list[FigureResult]:
    """Draw figures into `outputs/figures` from `outputs/tables`, leaving those that are up to date.

    Args:
        outputs: the folder that holds `tables/`.
        names: figures by name or number ("fig01"), or the dotted modules of others; all built-in ones by default.
        settings: the settings of a group of comparable jobs, in full or any part that only one group has; by
            default those of the newest job.
        force: draw figures again even if they are up to date.

    Raises:
        UnknownFigure: if no figure has one of the names.
        NoTables: if there are no tables.
        UnknownSettings: if no settings match, or several.
        FailedFigure: if the code of a figure fails.
    """
    wanted = resolve(names)
    tables = load(outputs, choose(outputs, settings))
    return [_draw_one(outputs / "figures", name, figure, tables, force) for name, figure in wanted.items()]


def _draw_one(folder: Path, name: str, figure: Figure, tables: Tables, force: bool) -> FigureResult:
    try:
        with _naming(name):
            selection = figure.select(tables)
            caption, csv = _caption(figure, selection, tables), render.to_csv(selection.data)
    except MissingData as reason:
        render.remove(folder, name)  # an older figure would show other settings
        return FigureResult(name, missing=f"{reason}; to get the data, run: {command_of(name)}")
    stamp = render.stamp_of(figure, csv, selection.title, caption)
    stale = force or not render.is_current(folder, name, stamp)
    if stale:
        with _naming(name):
            render.write(folder, name, figure, csv, selection.title, caption, stamp)
    paths = tuple(render.paths_of(folder, name).values())
    return FigureResult(name, paths, caption, drawn=stale, title=selection.title)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Name the figure in errors of its code within the block. What tables and disk lack is not the figure's fault."""
    try:
        yield
    except (MissingData, OSError, MemoryError):
        raise
    except Exception as error:  # whatever a figure of the user's own raises
        raise FailedFigure(f"figure {name}: {plain(error)}") from error


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
    notes = [*selection.notes, *tables.replicate_notes(), f"Settings: {tables.choice.line}."]
    return " ".join(notes) + (f"{left}{more}." if left else "")
