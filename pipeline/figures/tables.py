"""Load the tidy tables under `outputs/tables` and keep the rows of one group of comparable jobs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.figures.base import MissingData
from pipeline.figures.variants import canonical

NAMES = ("scores", "measures", "trajectories")
# Rows alike in these columns measure the same thing: only those of the newest job count.
IDENTITY = {
    "scores": ["pruner", "sparsity", "task", "metric"],
    "measures": ["pruner", "sparsity", "protocol"],
    "trajectories": ["pruner", "sparsity"],
}


class NoTables(FileNotFoundError):
    """There is no table to draw from yet."""


class UnknownSettings(ValueError):
    """No group of jobs, or more than one, matches the settings asked for."""


@dataclass(frozen=True)
class Choice:
    """The settings that are drawn, and the others which the tables hold."""

    settings: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Tables:
    """The rows of one `settings` line; a table that does not exist is an empty frame."""

    settings: str
    scores: pd.DataFrame
    measures: pd.DataFrame
    trajectories: pd.DataFrame

    def protocol(self, name: str) -> pd.DataFrame:
        """The measures under one protocol ("layer" or "free_running").

        Raises:
            MissingData: if there are none.
        """
        if self.measures.empty:
            raise MissingData("the measures table has no rows for these settings")
        rows = self.measures[self.measures["protocol"] == name]
        if rows.empty:
            raise MissingData(f"the measures table has no rows of the {name} protocol for these settings")
        return rows

    def model(self) -> str:
        """The model's name, from the first table that has rows."""
        frames = (self.scores, self.measures, self.trajectories)
        return next((str(frame["model"].iloc[0]) for frame in frames if not frame.empty), "")


def choose(outputs: Path, text: str | None = None) -> Choice:
    """Which settings to draw: those that `text` names in whole or in part, else the newest finished job's.

    Raises:
        NoTables: if `outputs/tables` has no scores, measures or trajectories.
        UnknownSettings: if `text` matches none of the settings or several.
    """
    known = _known_settings(outputs)
    chosen = _match(text, known) if text else _newest(outputs, known)
    return Choice(chosen, tuple(settings for settings in known if settings != chosen))


def load(outputs: Path, settings: str) -> Tables:
    """The rows of every table that belong to `settings`, one job's for each thing measured."""
    order = _job_order(outputs)
    frames = {name: _rows(outputs, name, settings, order) for name in NAMES}
    return Tables(settings, **frames)


def require(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Check that every column exists and holds a finite number somewhere.

    Raises:
        MissingData: naming the columns that do not.
    """
    lacking = [name for name in columns if name not in frame or not np.isfinite(frame[name].astype(float)).any()]
    if lacking:
        raise MissingData(f"the measures table has no values of {', '.join(lacking)} for these settings")


def _path(outputs: Path, name: str) -> Path:
    return outputs / "tables" / f"{name}.parquet"


def _known_settings(outputs: Path) -> list[str]:
    """Every settings line of the tables, in order of first appearance."""
    paths = [path for name in NAMES if (path := _path(outputs, name)).exists()]
    columns = [pd.read_parquet(path, columns=["settings"])["settings"].dropna() for path in paths]
    known = list(dict.fromkeys(value for column in columns for value in column.unique()))
    if not known:
        raise NoTables(
            f"no tables to draw from in {outputs / 'tables'}; run the pipeline first, "
            "e.g. python -m pipeline.main pruner=shortgpt sparsity=0.2"
        )
    return known


def _match(text: str, known: list[str]) -> str:
    if text in known:
        return text
    matches = [settings for settings in known if text.lower() in settings.lower()]
    if len(matches) == 1:
        return matches[0]
    listing = "".join(f"\n  {settings}" for settings in (matches or known))
    if matches:
        raise UnknownSettings(f"{len(matches)} settings contain {text!r}; give more of one of them:{listing}")
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownSettings(f"no settings contain {text!r}.{hint} The tables hold:{listing}")


def _newest(outputs: Path, known: list[str]) -> str:
    jobs = _jobs(outputs)
    jobs = jobs[jobs["settings"].isin(known)]
    if not jobs.empty:
        return str(jobs["settings"].iloc[-1])
    first = next(path for name in NAMES if (path := _path(outputs, name)).exists())
    return str(pd.read_parquet(first, columns=["settings"])["settings"].dropna().iloc[-1])


def _jobs(outputs: Path) -> pd.DataFrame:
    """Finished jobs (job, settings), oldest first; empty where no table of jobs exists."""
    path = _path(outputs, "jobs")
    if not path.exists():
        return pd.DataFrame({"job": [], "settings": []}, dtype=str)
    jobs = pd.read_parquet(path, columns=["job", "settings", "finished"]).dropna(subset=["finished"])
    return jobs.assign(finished=jobs["finished"].astype(str)).sort_values("finished", kind="stable")


def _job_order(outputs: Path) -> dict[str, int]:
    return {str(job): place for place, job in enumerate(_jobs(outputs)["job"])}


def _rows(outputs: Path, name: str, settings: str, order: dict[str, int]) -> pd.DataFrame:
    path = _path(outputs, name)
    if not path.exists():
        return pd.DataFrame()
    frame = pd.read_parquet(path, filters=[("settings", "==", settings)])
    if frame.empty:
        return frame
    words = frame["sparsity"].astype(str)
    frame = frame.assign(sparsity=words.map({word: canonical(word) for word in words.unique()}))
    # Jobs that the jobs table does not know rank below those it knows, in order of appearance.
    unknown = {str(job): place - len(frame) for place, job in enumerate(frame["job"].unique())}
    rank = frame["job"].astype(str).map({**unknown, **order})
    newest = rank.groupby([frame[column] for column in IDENTITY[name]]).transform("max")
    return frame[rank == newest].reset_index(drop=True)
