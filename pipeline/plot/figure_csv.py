"""CSV of the data that a figure shows: what is drawn from it is exactly what the file holds."""

from __future__ import annotations

import io

import pandas as pd

from pipeline.tables.variants import VARIANT

# Columns of words that pandas would otherwise read back as numbers ("0.2", "6") or as missing.
TEXT_COLUMNS = (
    "kind", "model", *VARIANT, "task", "metric", "series", "protocol", "prompt", "sublayer", "space",
    "quantity", "source", "stratum", "set", "theorem", "role", "text", "same_text", "label", "format",
    "unit", "criterion", "against",
)  # fmt: skip


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
