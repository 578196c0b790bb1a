"""Files of a figure: the same data make the same bytes, and a stamp tells whether the files are up to date."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import matplotlib as mpl
import pandas as pd

from pipeline.common.files import write_bytes
from pipeline.plot import style
from pipeline.plot.base import Figure
from pipeline.tables.variants import VARIANT

SUFFIXES = ("pdf", "png", "csv")
# Columns of words that pandas would otherwise read back as numbers ("0.2", "6") or as missing.
TEXT_COLUMNS = (
    "kind", "model", *VARIANT, "task", "metric", "series", "protocol", "prompt", "sublayer", "space",
    "quantity", "source", "stratum", "set", "theorem", "role", "text", "same_text", "label", "format",
    "unit", "criterion", "against",
)  # fmt: skip


def paths_of(folder: Path, name: str) -> dict[str, Path]:
    """Return the paths of the files of a figure, by suffix."""
    return {suffix: folder / f"{name}.{suffix}" for suffix in SUFFIXES}


def to_csv(data: pd.DataFrame) -> bytes:
    """Encode the drawn data as CSV with nine significant digits."""
    return data.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()


def from_csv(content: bytes) -> pd.DataFrame:
    """Decode the CSV of `to_csv`. Figures are drawn from the result, so their CSV holds exactly the drawn data."""
    header = content.split(b"\n", 1)[0].decode().split(",")
    text = {name: str for name in header if name in TEXT_COLUMNS}
    frame = pd.read_csv(io.BytesIO(content), dtype=text, keep_default_na=False, na_values=[""])
    frame = frame.assign(**{name: _numbers(frame[name]) for name in header if name not in text})
    # An empty cell means a variant without distinguishing options, not unknown ones.
    return frame.assign(options=frame["options"].fillna("")) if "options" in frame else frame


def _numbers(column: pd.Series) -> pd.Series:
    """Return a column as numbers; one with words in it as it is."""
    try:
        return pd.to_numeric(column)
    except ValueError:
        return column


def stamp_of(figure: Figure, csv: bytes, title: str, caption: str) -> str:
    """Compute a digest of everything that the files depend on."""
    parts = [csv.decode(), title, caption, str(style.STYLE_VERSION), str(figure.version), mpl.__version__]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_current(folder: Path, name: str, stamp: str) -> bool:
    """Return whether the files of the figure are those written under this stamp."""
    marker, paths = _marker(folder, name), paths_of(folder, name)
    if not all(path.exists() for path in (marker, *paths.values())):
        return False
    return marker.read_text(encoding="utf-8") == _seal(
        stamp, {suffix: path.read_bytes() for suffix, path in paths.items()}
    )


def write(folder: Path, name: str, figure: Figure, csv: bytes, title: str, caption: str, stamp: str) -> None:
    """Draw a figure and write PDF, PNG and CSV, each complete or not at all, and last the seal over all three."""
    folder.mkdir(parents=True, exist_ok=True)
    files = _render(figure, csv, title, caption)
    for suffix, path in paths_of(folder, name).items():
        write_bytes(path, files[suffix])
    write_bytes(_marker(folder, name), _seal(stamp, files).encode())


def remove(folder: Path, name: str) -> None:
    """Delete the files of an earlier `write`, for a figure that the present tables no longer support."""
    if _marker(folder, name).exists():
        for path in (_marker(folder, name), *paths_of(folder, name).values()):
            path.unlink(missing_ok=True)


def _render(figure: Figure, csv: bytes, title: str, caption: str) -> dict[str, bytes]:
    # Dates and program versions are left out: they would change the bytes.
    pdf = {"Title": title, "Subject": caption, "CreationDate": None, "Producer": None, "Creator": None}
    png = {"Title": title, "Description": caption, "Software": None}
    with style.look():
        canvas = figure.draw(from_csv(csv), title, caption)
        files = {"csv": csv}
        for suffix, metadata in (("pdf", pdf), ("png", png)):
            buffer = io.BytesIO()
            canvas.savefig(buffer, format=suffix, dpi=style.DPI, metadata=metadata)
            files[suffix] = buffer.getvalue()
    return files


def _seal(stamp: str, files: dict[str, bytes]) -> str:
    """Join the stamp and the digests of the files, since two jobs that draw at once may leave a mixture of files."""
    return "\n".join([stamp, *(hashlib.sha256(files[suffix]).hexdigest() for suffix in SUFFIXES)])


def _marker(folder: Path, name: str) -> Path:
    return folder / f".{name}.stamp"
