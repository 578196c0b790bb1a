"""What a tracker is given: checks of values, curves and files, and the link to a file that may go away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.track.values import number

if TYPE_CHECKING:
    import pandas as pd


def scalars(values: Mapping[str, object]) -> dict[str, float | int | str]:
    """Return numbers and texts as W&B writes them, without None. Raises TypeError for anything else."""
    return {key: _scalar(key, value) for key, value in values.items() if value is not None}


def _scalar(key: str, value: object) -> float | int | str:
    if isinstance(value, str):
        return value
    try:
        return number(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"summary {key}: {value!r} is neither a number nor a string") from error


def check_curve(name: str, frame: pd.DataFrame, step: str) -> None:
    """Raise ValueError unless a curve has one row per step and numeric columns."""
    if step not in frame.columns:
        raise ValueError(f"curve {name}: no step column {step!r} among {list(frame.columns)}")
    if frame[step].isna().any() or frame[step].duplicated().any():
        raise ValueError(f"curve {name}: {step!r} must have one row per value; aggregate first")
    if texts := [column for column in frame.columns if frame[column].dtype.kind not in "biuf"]:
        raise ValueError(f"curve {name}: columns {texts} are not numeric; drop them first")


def check_file(path: Path) -> None:
    """Raise FileNotFoundError if there is no file to log."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} to log")


def link(path: Path, folder: Path) -> Path:
    """Return a hard link to `path` in `folder`, or a copy where the file system has no hard links."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    target.unlink(missing_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)
    return target
