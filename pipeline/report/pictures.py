"""Figures of the page: pictures and data are embedded in it, the small panels of maps lie beside it."""

from __future__ import annotations

import base64
import gzip
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.config.choices import figure_names
from pipeline.config.figures import number_of, supplement_of
from pipeline.plot.drawing import FigureResult
from pipeline.plot.png import MARGINS
from pipeline.report.csv_tables import csv_table
from pipeline.report.table import Table

COLOURS = 96  # of a picture, spread over all that it has: figures look the same and need half of the bytes
LARGE_CSV = 10_000  # bytes above which the data embedded in the page are compressed
# Built-in figures that the page shows unfolded: the headline is the first of the one kind, the others tell the story.
HEADLINES = ("fig26", "fig01")
STORY = ("fig02", "fig07")
REMEDY = "; to get the data, run: "  # between reason and command of a missing figure


@dataclass(frozen=True)
class Picture:
    """One figure or table: its files as `data:` URIs and as paths relative to the page.

    `image` is empty for a table, and for a supplement, which shows the numbers of another figure once more.
    """

    name: str
    label: str
    title: str
    caption: str
    png: str
    image: str
    width: int
    height: int
    csv: str
    csv_name: str
    table: Table | None

    @property
    def main(self) -> bool:
        """Whether it is shown unfolded: a figure of the story, or one of the user's own."""
        return self.name not in figure_names() or (number_of(self.name) in STORY and not supplement_of(self.name))


@dataclass(frozen=True)
class Missing:
    """A figure that is not drawn: the reason, and the command that makes its data, or nothing if its file failed."""

    name: str
    label: str
    reason: str
    command: str


def pictures(results: Sequence[FigureResult], page: Path) -> list[Picture]:
    """Return the figures that were drawn, in order; paths are relative to the folder of `page`."""
    there = [result for result in results if result.missing is None]
    # Reducing colours and compressing let other threads run.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda result: _picture(result, page.parent), there))


def headline_of(shown: Sequence[Picture]) -> Picture | None:
    """Return the picture that stands beside the answer, or None if it is not drawn."""
    by_number = {number_of(picture.name): picture for picture in reversed(shown)}
    return next((by_number[number] for number in HEADLINES if number in by_number), None)


def missing(results: Sequence[FigureResult]) -> list[Missing]:
    """Return the figures that were not drawn, in order."""
    lacking = []
    for result in results:
        if result.missing is not None:
            reason, _, command = result.missing.partition(REMEDY)
            lacking.append(Missing(result.name, label_of(result.name), reason, command))
    return lacking


def label_of(name: str) -> str:
    """Return the label of a figure: "Figure 5", "Table 1"; of a supplement "Figure 14, panels"."""
    kind, digits = name[:3], name[3:].partition("_")[0]
    more = f", {supplement}" if (supplement := supplement_of(name)) else ""
    return f"{'Figure' if kind == 'fig' else 'Table'} {int(digits)}{more}"


def _picture(result: FigureResult, folder: Path) -> Picture:
    files = {path.suffix: path for path in result.paths}
    csv = files[".csv"].read_bytes()
    large = len(csv) > LARGE_CSV
    is_table, beside = result.name.startswith("tab"), bool(supplement_of(result.name))
    image, width, height = (b"", 0, 0) if is_table or beside else _embedded(files[".png"].read_bytes())
    return Picture(
        name=result.name,
        label=label_of(result.name),
        title=result.title,
        caption=result.caption,
        png=_relative(files[".png"], folder),
        image=_data_uri("image/webp", image) if image else "",
        width=width,
        height=height,
        csv=_relative(files[".csv"], folder) if beside else _csv_uri(csv, large),
        csv_name=f"{result.name}.csv{'.gz' if large and not beside else ''}",
        table=csv_table(csv) if is_table else None,
    )


def _csv_uri(content: bytes, large: bool) -> str:
    if large:
        return _data_uri("application/gzip", gzip.compress(content, mtime=0))
    return _data_uri("text/csv", content)


def _embedded(content: bytes) -> tuple[bytes, int, int]:
    """Reduce a picture to few colours, without title and caption; return it with its width and height in pixels."""
    whole = Image.open(io.BytesIO(content))
    top, bottom = map(int, whole.info.get(MARGINS, "0 0").split())
    picture = whole.convert("RGB").crop((0, top, whole.width, whole.height - bottom))
    buffer = io.BytesIO()
    few = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).convert("RGB")
    few.save(buffer, "WEBP", lossless=True, method=2, quality=0)  # without loss: the effort, for a tenth of the bytes
    return buffer.getvalue(), picture.width, picture.height


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
