"""Write a figure's files so that the same data make the same bytes, and tell which are up to date."""

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
# Words that pandas would otherwise read back as numbers ("0.2", "6") or as missing.
TEXT_COLUMNS = (
    "kind", "model", *VARIANT, "task", "metric", "series", "protocol", "prompt", "sublayer", "space",
    "quantity", "source", "stratum", "set", "theorem", "role", "text", "same_text", "label", "format",
    "unit", "criterion", "against",
)  # fmt: skip


def paths_of(folder: Path, name: str) -> dict[str, Path]:
    """The files of a figure, by suffix."""
    return {suffix: folder / f"{name}.{suffix}" for suffix in SUFFIXES}


def to_csv(data: pd.DataFrame) -> bytes:
    """The drawn data as CSV, nine significant digits."""
    return data.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()


def from_csv(content: bytes) -> pd.DataFrame:
    """The inverse of `to_csv`: what a figure is drawn from, so that its CSV is exactly the drawn data."""
    header = content.split(b"\n", 1)[0].decode().split(",")
    text = {name: str for name in header if name in TEXT_COLUMNS}
    frame = pd.read_csv(io.BytesIO(content), dtype=text, keep_default_na=False, na_values=[""])
    numbers = [name for name in header if name not in text]
    frame = frame.assign(**{name: pd.to_numeric(frame[name]) for name in numbers})
    # A variant that nothing sets apart has no options, rather than unknown ones.
    return frame.assign(options=frame["options"].fillna("")) if "options" in frame else frame


def stamp_of(figure: Figure, csv: bytes, title: str, caption: str) -> str:
    """A digest of everything that the files depend on."""
    parts = [csv.decode(), title, caption, str(style.STYLE_VERSION), str(figure.version), mpl.__version__]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_current(folder: Path, name: str, stamp: str) -> bool:
    """Whether the figure's files are those that were written under this stamp."""
    marker, paths = _marker(folder, name), paths_of(folder, name)
    if not all(path.exists() for path in (marker, *paths.values())):
        return False
    return marker.read_text(encoding="utf-8") == _seal(
        stamp, {suffix: path.read_bytes() for suffix, path in paths.items()}
    )


def write(folder: Path, name: str, figure: Figure, csv: bytes, title: str, caption: str, stamp: str) -> None:
    """Draw and write PDF, PNG and CSV, each complete or not at all, and the seal over all three last."""
    folder.mkdir(parents=True, exist_ok=True)
    files = _render(figure, csv, title, caption)
    for suffix, path in paths_of(folder, name).items():
        write_bytes(path, files[suffix])
    write_bytes(_marker(folder, name), _seal(stamp, files).encode())


def remove(folder: Path, name: str) -> None:
    """Delete the files that `write` made earlier and that the present tables no longer support."""
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
    """The stamp with the digests of the files, since two jobs that draw at once may leave a mixture."""
    return "\n".join([stamp, *(hashlib.sha256(files[suffix]).hexdigest() for suffix in SUFFIXES)])


def _marker(folder: Path, name: str) -> Path:
    return folder / f".{name}.stamp"
