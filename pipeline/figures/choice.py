"""Which of the settings in the tables are drawn: a group of jobs that can be compared."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.figures.table_files import NoTables, check_folders, read_table

SCORES, STATES = "scores", "states"
# Two kinds of tables, whose rows can be compared under settings of their own: task scores, and captured states.
NAMES = {
    "scores": SCORES,
    "comparisons": SCORES,
    "items": SCORES,
    "rankings": SCORES,
    "measures": STATES,
    "trajectories": STATES,
    "options": STATES,
    "option_tokens": STATES,
    "prompts": STATES,
}
_JOB_COLUMNS = [
    "job",
    "settings",
    "states",
    "model",
    "pruner",
    "sparsity",
    "unit",
    "achieved",
    "parameters",
    "dense_parameters",
    "finished",
]
# Between the parts of a settings line; the first part is the model.
SEPARATOR = " · "


class UnknownSettings(ValueError):
    """No group of jobs, or more than one, matches the settings asked for."""


@dataclass(frozen=True)
class Choice:
    """The settings that are drawn, for scores and for states (empty if there are none), and the others there are."""

    scores: str
    states: str
    others: tuple[str, ...]

    def of(self, kind: str) -> str:
        return self.scores if kind == SCORES else self.states

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(line for line in (self.scores, self.states) if line))


def choose(outputs: Path, text: str | None = None) -> Choice:
    """Which settings to draw: those that `text` names in whole or in part, else the newest finished job's.

    Scores and states go together only if some job has both lines: else the same name and sparsity may stand for
    different decisions.

    Raises:
        NoTables: if `outputs/tables` has no table with rows.
        UnknownSettings: if `text` matches none of the settings, or several that are not of the same jobs.
        DamagedTable: if a table cannot be relied on.
    """
    check_folders(outputs)
    known = {kind: _known_settings(outputs, kind) for kind in (SCORES, STATES)}
    everything = list(dict.fromkeys(known[SCORES] + known[STATES]))
    if not everything:
        raise NoTables(
            f"no tables to draw from in {outputs / 'tables'}; run the pipeline first, "
            "e.g. python -m pipeline.main pruner=shortgpt sparsity=0.2"
        )
    jobs = read_jobs(outputs)
    ranked = _by_age(jobs, everything)
    matched = [line for line in everything if line == text] or (_match(text, everything) if text else [])
    anchor = matched[0] if matched else ranked[-1]
    mine = [line for line in matched if line == anchor or _go_together(line, anchor, jobs)]
    chosen = {}
    for kind, lines in known.items():
        named = [line for line in mine if line in lines]
        if len(named) > 1 or mine != matched:
            listing = "".join(f"\n  {line}" for line in matched)
            raise UnknownSettings(f"{len(matched)} settings contain {text!r}; give more of one of them:{listing}")
        there = [line for line in ranked if line in lines and (line == anchor or _go_together(line, anchor, jobs))]
        chosen[kind] = (named or there[-1:] or [""])[0]
    others = tuple(line for line in everything if line not in chosen.values())
    return Choice(chosen[SCORES], chosen[STATES], others)


def peers_of(choice: Choice) -> list[Choice]:
    """The choices of other models under the same settings."""
    tails = {kind: choice.of(kind).partition(SEPARATOR)[2] for kind in (SCORES, STATES)}
    found: dict[str, dict[str, str]] = {}
    for line in choice.others:
        model, _, tail = line.partition(SEPARATOR)
        for kind in (SCORES, STATES):
            if tail and tail == tails[kind] and model != _model_of(choice.of(kind)):
                found.setdefault(model, {})[kind] = line
    return [Choice(lines.get(SCORES, ""), lines.get(STATES, ""), ()) for lines in found.values()]


def _model_of(line: str) -> str:
    return line.partition(SEPARATOR)[0]


def _go_together(one: str, other: str, jobs: pd.DataFrame) -> bool:
    """Whether lines of scores and of states are of the same jobs, or of one model where no job is known to have one."""
    pairs = set(zip(jobs["settings"], jobs["states"], strict=True))
    if {one, other} <= {line for pair in pairs for line in pair}:
        return (one, other) in pairs or (other, one) in pairs
    return _model_of(one) == _model_of(other)


def _known_settings(outputs: Path, kind: str) -> list[str]:
    """Every settings line of the tables of a kind, in order of first appearance."""
    read = [read_table(outputs, name, columns=["settings"]) for name, of in NAMES.items() if of == kind]
    columns = [table["settings"].dropna() for table in read if table is not None]
    return list(dict.fromkeys(value for column in columns for value in column.unique()))


def _match(text: str, known: list[str]) -> list[str]:
    matches = [settings for settings in known if text.lower() in settings.lower()]
    if matches:
        return matches
    listing = "".join(f"\n  {settings}" for settings in known)
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownSettings(f"no settings contain {text!r}.{hint} The tables hold:{listing}")


def _by_age(jobs: pd.DataFrame, known: list[str]) -> list[str]:
    """The settings lines, the newest job's last; those of no known job come first."""
    seen = [line for pair in zip(jobs["settings"], jobs["states"], strict=True) for line in pair]
    place = {line: at for at, line in enumerate(seen)}
    return sorted(known, key=lambda line: place.get(line, -1))


def read_jobs(outputs: Path) -> pd.DataFrame:
    """Finished jobs, oldest first; empty where no table of jobs exists."""
    table = read_table(outputs, "jobs", columns=_JOB_COLUMNS)
    if table is None:
        return pd.DataFrame({name: [] for name in _JOB_COLUMNS}, dtype=str)
    jobs = table.dropna(subset=["finished"])
    return jobs.assign(finished=jobs["finished"].astype(str)).sort_values("finished", kind="stable")
