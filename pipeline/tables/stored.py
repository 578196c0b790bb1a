"""Access to the files under `outputs/tables`, whose contents are checked before anything relies on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.common.access import NoAccess, reading
from pipeline.config.sparsity import parse
from pipeline.store.table_columns import HOW, IDS, WHO, WORDS
from pipeline.tables.job_columns import JOB_COLUMNS

SUFFIX = ".parquet"
# Advice in messages about a file that is not a valid table.
DIAGNOSIS = "python -m pipeline.results verify lists what is damaged"
REMEDY = "run python -m pipeline.results verify --repair to rebuild the tables"
_WHO = (*WHO, *HOW, *IDS)
# Columns that every table must have.
REQUIRED = {
    "scores": (*_WHO, "kind", "task", "metric", "main", "value", "stderr", "n", "averaged", "chance"),
    "comparisons": (*_WHO, "kind", "task", "n", "dense", "pruned", "difference", "low", "high", "retained", "verdict"),
    "fidelity": (*_WHO, "kind", "task", "n", "lost", "lost_ranked", "lost_twins", "lost_twins_right"),
    "items": (*_WHO, "kind", "task", "item", "score"),
    "rankings": (*_WHO, "layer", "sublayer", "score", "step"),
    "measures": (*_WHO, "protocol", "prompt", "step", "layer", "sublayer", "temperature"),
    "agreement": (*_WHO, "protocol", "temperature", "n"),
    "set_measures": (*_WHO, "protocol", "layer", "sublayer", "n", "measure", "value"),
    "trajectories": (*_WHO, "prompt", "step", "dense_token", "pruned_token", "dense_text", "pruned_text"),
    "options": (*_WHO, "prompt", "origin", "set", "temperature"),
    "option_tokens": (*_WHO, "prompt", "origin", "role", "place", "token", "text"),
    "prompts": (*_WHO, "prompt", "format", "text"),
    "jobs": tuple(JOB_COLUMNS),
}
_MIXED = ("shots", "steps", "item")  # numbers that may be missing, or given as text


class MissingData(Exception):
    """Raised when the tables lack data that a figure needs; the message says which, without the remedy."""


class NoTables(FileNotFoundError):
    """Raised when there is no table to draw from yet."""


class DamagedTable(NoTables):
    """Raised for a file that is not a valid table or cannot be read, or a folder that leads out of outputs."""


def check_folders(outputs: Path) -> None:
    """Raise DamagedTable if a folder that is read or written here is a link to somewhere else."""
    root = os.path.realpath(outputs)
    for name in ("tables", "figures", "figures/paper", "report"):
        real = os.path.realpath(outputs / name)
        if os.path.commonpath([root, real]) != root:
            raise DamagedTable(f"{outputs / name} points outside {outputs}, to {real}; replace it with a folder")


def read_table(
    outputs: Path, name: str, columns: Sequence[str] | None = None, filters: list[Any] | None = None
) -> pd.DataFrame | None:
    """Return a table, or some of its columns or rows; None if there is no such file.

    Raises:
        DamagedTable: if it cannot be read, lacks a column, has text in place of numbers, or an invalid sparsity; for a
            file that this user may not read, with that as its message.
    """
    path = outputs / "tables" / f"{name}{SUFFIX}"
    try:
        with reading(path):
            path.lstat()
            if not path.is_file():
                raise DamagedTable(f"{path} is not a regular file; remove it, then {REMEDY}")
            path.open("rb").close()
    except DamagedTable:
        raise
    except FileNotFoundError:
        return None
    except NoAccess as error:
        raise DamagedTable(str(error)) from error
    import pyarrow
    import pyarrow.parquet

    try:
        _check_schema(pyarrow.parquet.read_schema(path), name)
        # Page checksums keep a flipped bit from passing as a number.
        frame = pd.read_parquet(
            path, columns=None if columns is None else list(columns), filters=filters, page_checksum_verification=True
        )
        # The column names of a frame are stored a second time, in separate metadata.
        _check_names(REQUIRED[name] if columns is None else columns, list(frame.columns))
        for word in frame["sparsity"].astype(str).unique() if "sparsity" in frame else ():
            parse(word)
        return frame
    except DamagedTable as error:
        raise DamagedTable(f"{path} is not a table of {name}: {error}; {REMEDY}") from error
    except (OSError, MemoryError, ValueError, TypeError, KeyError, OverflowError, pyarrow.ArrowException) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DamagedTable(f"{path} cannot be read: {why}; {REMEDY}") from error


def _check_schema(schema: Any, name: str) -> None:
    """Raise DamagedTable, with the reason, for a table that is not as `pipeline.tables.write` writes it."""
    from pyarrow import types

    _check_names(REQUIRED[name], schema.names)
    if len(set(schema.names)) < len(schema.names):
        raise DamagedTable("it has duplicate columns")
    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        words = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
        fits = types.is_null(kind) or (words if field.name in WORDS else number)
        if field.name in _MIXED:
            fits = fits or words or number
        if not fits:
            raise DamagedTable(f"{field.name} has type {field.type}")


def _check_names(wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise DamagedTable, naming the missing columns, if there are any."""
    if lacking := [column for column in wanted if column not in there]:
        raise DamagedTable(f"it has no {', '.join(lacking)}")
