"""Figures of the page: pictures and data are embedded in it, PDFs lie beside it."""

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

from pipeline.config.figures import supplement_of
from pipeline.plot.drawing import FigureResult
from pipeline.plot.render import MARGINS
from pipeline.report.csv_tables import csv_table
from pipeline.report.table import Table

COLOURS = 256  # of a palette, with which figures look the same and need a third of the bytes
LARGE_CSV = 200_000  # bytes above which the data embedded in the page are compressed
REMEDY = "; to get the data, run: "  # between reason and command of a missing figure


@dataclass(frozen=True)
class Picture:
    """One figure or table: its files as `data:` URIs and as paths relative to the page."""

    name: str
    label: str
    title: str
    caption: str
    pdf: str
    png: str
    image: str
    width: int
    height: int
    csv: str
    csv_name: str
    table: Table | None


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
    is_table = result.name.startswith("tab")
    image, width, height = _palette_png(files[".png"].read_bytes()) if not is_table else (b"", 0, 0)
    return Picture(
        name=result.name,
        label=label_of(result.name),
        title=result.title,
        caption=result.caption,
        pdf=_relative(files[".pdf"], folder),
        png=_relative(files[".png"], folder),
        image=_data_uri("image/png", image) if image else "",
        width=width,
        height=height,
        csv=_data_uri("application/gzip", gzip.compress(csv, mtime=0)) if large else _data_uri("text/csv", csv),
        csv_name=f"{result.name}.csv{'.gz' if large else ''}",
        table=csv_table(csv) if is_table else None,
    )


def _palette_png(content: bytes) -> tuple[bytes, int, int]:
    """Reduce a picture to a palette, without title and caption; return it with its width and height in pixels."""
    whole = Image.open(io.BytesIO(content))
    top, bottom = map(int, whole.info.get(MARGINS, "0 0").split())
    picture = whole.convert("RGB").crop((0, top, whole.width, whole.height - bottom))
    buffer = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), picture.width, picture.height


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
