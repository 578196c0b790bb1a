"""Files of a figure: the same data make the same bytes, and a stamp tells whether the files are up to date."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from pipeline.common.files import write_bytes
from pipeline.config.schema import PAPER, SCREEN, FiguresConfig
from pipeline.plot import canvas, latex, png, style
from pipeline.plot.base import Figure
from pipeline.plot.figure_csv import from_csv
from pipeline.plot.grid_layout import raster

SUFFIXES = {SCREEN: ("png", "csv"), PAPER: ("pdf", "png", "csv", "txt", "tex")}


@dataclass(frozen=True)
class Content:
    """What a figure shows: its data as CSV, title and caption."""

    figure: Figure
    csv: bytes
    title: str
    caption: str


@dataclass(frozen=True)
class FigureFiles:
    """The files of a figure in one form. Those for a paper are in a folder inside `folder`."""

    folder: Path
    name: str
    form: FiguresConfig

    @property
    def paths(self) -> dict[str, Path]:
        """The path of each file, by suffix."""
        return {suffix: self._home / f"{self.name}.{suffix}" for suffix in SUFFIXES[self.form.style]}

    @property
    def _home(self) -> Path:
        return self.folder / PAPER if self.form.style == PAPER else self.folder

    @property
    def _marker(self) -> Path:
        return self._home / f".{self.name}.stamp"

    def are_current(self, content: Content) -> bool:
        """Return whether the files are those that `write` makes of this content."""
        if not all(path.exists() for path in (self._marker, *self.paths.values())):
            return False
        files = {suffix: path.read_bytes() for suffix, path in self.paths.items()}
        return self._marker.read_text(encoding="utf-8") == _seal(self._stamp(content), files)

    def write(self, content: Content) -> None:
        """Draw the figure and write its files, each complete or not at all, and last the seal over all of them."""
        self._home.mkdir(parents=True, exist_ok=True)
        data = from_csv(content.csv)
        with style.look(self.form, content.figure.span_of(data)):
            files = _render(content, data) | ({} if self.form.style != PAPER else self._texts(content, data))
        for suffix, path in self.paths.items():
            write_bytes(path, files[suffix])
        write_bytes(self._marker, _seal(self._stamp(content), files).encode())

    def remove(self) -> None:
        """Delete the files of an earlier `write`, for a figure that the present tables no longer support."""
        if self._marker.exists():
            for path in (self._marker, *self.paths.values()):
                path.unlink(missing_ok=True)

    def _texts(self, content: Content, data: pd.DataFrame) -> dict[str, bytes]:
        """Return the caption as text, and LaTeX that shows it with the picture or the table."""
        figure, end = content.figure, "" if content.title.endswith("?") else "."
        span = figure.span_of(data)
        caption = f"{content.title}{end} {content.caption}"
        if figure.blocks is None:
            tex = latex.picture(self.name, caption, span)
        else:
            tex = latex.tables(self.name, caption, span, figure.blocks(data))
        return {"txt": f"{caption}\n".encode(), "tex": tex.encode()}

    def _stamp(self, content: Content) -> str:
        """Compute a digest of everything that the files depend on."""
        form = [self.form.style, self.form.column, self.form.page]
        versions = [style.STYLE_VERSION, content.figure.version, mpl.__version__]
        parts = [content.csv.decode(), content.title, content.caption, *form, *versions]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _render(content: Content, data: pd.DataFrame) -> dict[str, bytes]:
    words = {"Title": content.title, "Description": content.caption}
    shown = ("", "") if style.for_paper() else (content.title, content.caption)
    sheet = content.figure.draw(data, *shown)
    canvas.settle(sheet)
    if isinstance(sheet, canvas.Sheet):
        words[png.MARGINS] = f"{round(sheet.head * style.DPI)} {round(sheet.foot * style.DPI)}"
    files = {"csv": content.csv, "png": _png(sheet, words)}
    return files | {"pdf": _pdf(sheet, content)} if style.for_paper() else files


def _png(sheet: Canvas, words: Mapping[str, str]) -> bytes:
    """Draw a figure as a PNG without transparency, on the canvas that has measured its texts."""
    sheet.set_dpi(style.DPI)
    pixels = raster(sheet)
    pixels.draw()
    return png.encode(np.asarray(pixels.buffer_rgba()), words, style.DPI)


def _pdf(sheet: Canvas, content: Content) -> bytes:
    # Dates and program versions are left out: they would change the bytes.
    words = {
        "Title": content.title,
        "Subject": content.caption,
        "CreationDate": None,
        "Producer": None,
        "Creator": None,
    }
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="pdf", dpi=style.DPI, metadata=words)
    return buffer.getvalue()


def _seal(stamp: str, files: Mapping[str, bytes]) -> str:
    """Join the stamp and the digests of the files, since two jobs that draw at once may leave a mixture of files."""
    return "\n".join([stamp, *(hashlib.sha256(files[suffix]).hexdigest() for suffix in sorted(files))])
