"""Choice of the jobs to draw from the tables: one model under one group of settings."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.tables.job_columns import JOB_COLUMNS
from pipeline.tables.labels import model_names
from pipeline.tables.stored import NoTables, check_folders, read_table
from pipeline.tables.write import bring_up_to_date

# Separates the parts of a settings line, the first of which is the model.
SEPARATOR = " · "


class UnknownSettings(ValueError):
    """Raised when no group of jobs, or more than one, matches the requested settings."""


@dataclass(frozen=True)
class Choice:
    """The model and the settings to draw, their line for people, and the lines of the other groups in the tables."""

    model_id: str
    settings_id: str
    line: str = ""
    others: tuple[str, ...] = ()


def choose(outputs: Path, text: str | None = None) -> Choice:
    """Choose the settings that `text` names in whole or in part, by default those of the newest finished job.

    Raises:
        NoTables: if `outputs/tables` has no table of jobs with rows.
        UnknownSettings: if `text` matches none of the settings, or several.
        DamagedTable: if a table cannot be relied on.
    """
    check_folders(outputs)
    bring_up_to_date(outputs)
    found = groups(read_jobs(outputs))
    if not found:
        raise NoTables(
            f"no tables to draw from in {outputs / 'tables'}; run the pipeline first, for example python -m "
            "pipeline.main pruner=shortgpt sparsity=0.2"
        )
    chosen = _match(text, found) if text else found[-1]
    return Choice(chosen.model_id, chosen.settings_id, chosen.line, tuple(g.line for g in found if g is not chosen))


def peers_of(choice: Choice, jobs: pd.DataFrame) -> list[Choice]:
    """Return the choices of other models under the same settings."""
    same = [group for group in groups(jobs) if group.settings_id == choice.settings_id]
    return [group for group in same if group.model_id != choice.model_id]


def groups(jobs: pd.DataFrame) -> list[Choice]:
    """Return a choice for every model and settings among the jobs, that of the newest job last."""
    last = jobs.drop_duplicates(["model_id", "settings_id"], keep="last")
    names = names_of(jobs)
    return [
        Choice(row.model_id, row.settings_id, f"{names[row.model_id]}{SEPARATOR}{row.settings}")
        for row in last.itertuples()
    ]


def names_of(jobs: pd.DataFrame) -> dict[str, str]:
    """Return a name for each model id."""
    return model_names(zip(jobs["model_id"], jobs["model"], strict=True))


def _match(text: str, known: Sequence[Choice]) -> Choice:
    matches = [group for group in known if group.line == text]
    matches = matches or [group for group in known if text.lower() in group.line.lower()]
    if len(matches) == 1:
        return matches[0]
    listing = "".join(f"\n  {group.line}" for group in matches or known)
    if matches:
        raise UnknownSettings(f"{len(matches)} settings contain {text!r}; give a longer part of one of them:{listing}")
    near = difflib.get_close_matches(text, [group.line for group in known], n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownSettings(f"no settings contain {text!r}.{hint} The tables contain:{listing}")


def read_jobs(outputs: Path) -> pd.DataFrame:
    """Return the finished jobs, oldest first; empty where no table of jobs exists."""
    table = read_table(outputs, "jobs", columns=JOB_COLUMNS)
    if table is None:
        return pd.DataFrame({name: [] for name in JOB_COLUMNS}, dtype=str)
    jobs = table.dropna(subset=["finished"])
    return jobs.assign(finished=jobs["finished"].astype(str)).sort_values("finished", kind="stable")
