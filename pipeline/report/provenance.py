"""Everything that a colleague needs to repeat the run: command, commit, model, data, versions, machine, seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.analysis.effects import kind_name
from pipeline.common.secrets import redact
from pipeline.config.probes import PROBES
from pipeline.report.changes import PERPLEXITY, kinds_of
from pipeline.report.commands import commands_of
from pipeline.report.table import NONE, Body, Cell, Column, Table, number
from pipeline.store.artifacts import Store
from pipeline.store.integrity import MANIFEST, read_sealed
from pipeline.store.origins import shown_together
from pipeline.store.records import JobRecord
from pipeline.tables.read import Tables

# Facts of a model's identity that are shown under other names, or not at all.
_NO_FACTS = ("type", "version", "layers", "parts")
_WHERE = ("outputs", "wandb.", "figures.", "stages", "export.", "objective")
_COMMIT_LETTERS = 12


@dataclass(frozen=True)
class Provenance:
    """Parts of the section.

    Attributes:
        commands: what to type, line by line; empty where no command is recorded.
        facts: names and values, for people.
        tasks: tasks with metric, shots, items and chance; None without any.
        settings: all settings that the jobs share, as ``key=value``; empty without records.
        differing: those in which they differ, by job.
    """

    commands: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    tasks: Table | None
    settings: tuple[str, ...]
    differing: tuple[str, ...]


def provenance_of(tables: Tables, records: Sequence[JobRecord], store: Store) -> Provenance:
    """Collect the provenance of the jobs of the page, from their records and, without these, from the tables alone."""
    shared, differing = _configs(records)
    return Provenance(
        commands=_commands(tables, store),
        facts=tuple((name, redact(text)) for name, text in _facts(tables, records, store) if text),
        tasks=_tasks(tables.scores),
        settings=shared,
        differing=differing,
    )


def records_of(tables: Tables, records: Iterable[JobRecord]) -> list[JobRecord]:
    """Return the records of the jobs of the page."""
    there = set(tables.jobs["job"]) if not tables.jobs.empty else set()
    return [record for record in records if record.job in there]


def _commands(tables: Tables, store: Store) -> tuple[str, ...]:
    commands = commands_of(store.runs, set(tables.jobs["job"])) if not tables.jobs.empty else []
    commits = _distinct(tables.jobs["commit"]) if commands else []
    checkout = [f"git checkout {commits[0]}"] if len(commits) == 1 else []
    return (*checkout, *commands)


def _facts(tables: Tables, records: Sequence[JobRecord], store: Store) -> list[tuple[str, str]]:
    jobs = tables.jobs
    if jobs.empty:
        return []
    origins = [record.origin for record in records if record.origin]
    days = sorted({str(started)[:10] for started in jobs["started"] if started})
    return [
        ("Model", _model(tables, records, store)),
        ("Precision", _listed(jobs["dtype"])),
        ("Calibration", "; ".join(_distinct(_calibration(row) for row in jobs.to_dict("records")))),
        ("Prompts", _prompts(tables, records)),
        ("Seeds", _seeds(jobs, records)),
        ("Date", f"{' to '.join(dict.fromkeys((days[0], days[-1])))} (UTC)" if days else ""),
        ("Commit", _commit(jobs, origins)),
        ("Versions", "; ".join(_distinct(map(_versions, origins)))),
        ("Machine", "; ".join(_distinct(map(_machine, origins)))),
        ("Differences", shown_together(origins) or ""),
    ]


def _model(tables: Tables, records: Sequence[JobRecord], store: Store) -> str:
    """Describe the model: its name, where it is from, and what identifies its weights."""
    parameters = tables.jobs["dense_parameters"].dropna()
    size = [f"{int(parameters.iloc[0]):,} parameters"] if len(parameters) else []
    revisions = [f"revision {text}" for text in _distinct(tables.jobs["model_revision"])]
    if not records:
        return ", ".join([tables.model(), *revisions, *size])
    config = records[-1].config
    origin = [str(config[key]) for key in ("model.base_model", "model.path") if config.get(key)][:1]
    licence = [f"licence {config['model.license']}"] if config.get("model.license") else []
    identity = _identity(records, store)
    own = [f"{name} {value}" for name, value in identity.items() if name not in _NO_FACTS and value not in (None, "")]
    told = [text for text in own or revisions if text.partition(" ")[2] not in origin]
    return ", ".join(dict.fromkeys([tables.model(), *origin, *told, *licence, *size]))


def _identity(records: Sequence[JobRecord], store: Store) -> Mapping[str, Any]:
    """Return what the key of a decision says of its model; empty where no manifest can be read."""
    for record in records:
        if place := record.artifacts.get("decision"):
            try:
                return read_sealed(store.root / place / MANIFEST)["inputs"]["model"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return {}


def _calibration(row: Mapping[str, Any]) -> str:
    if not row["calibration"]:
        return ""
    size = f", {row['sequences']:.0f} sequences of {row['length']:.0f} tokens" if _known(row["sequences"]) else ""
    return f"{row['calibration']}{size}"


def _prompts(tables: Tables, records: Sequence[JobRecord]) -> str:
    if tables.trajectories.empty:
        return ""
    count = tables.trajectories["probe"].nunique()
    steps = int(tables.trajectories["step"].max()) + 1
    files = _distinct(str(record.config["probes"]) for record in records if record.config.get("probes"))
    all_built_in = bool(records) and not files and count == len(PROBES)
    source = f"from {', '.join(files)}" if files else "built-in" if all_built_in else ""
    decoding = _distinct(str(record.config.get("capture.decoding", "")) for record in records)
    how = f", {', '.join(decoding)}" if decoding else ""
    return f"{count} {source}".strip() + f", each continued for at most {steps} tokens{how}"


def _seeds(jobs: pd.DataFrame, records: Sequence[JobRecord]) -> str:
    of_text = _distinct(str(record.config.get("calibration.seed", "")) for record in records if record.calibrated)
    draws = _distinct(int(draw) for draw in jobs["pruner_draw"] if _known(draw) and draw != 1)
    texts = _distinct(int(draw) for draw in jobs["calibration_draw"] if _known(draw) and draw != 1)
    parts = [_listed(jobs["seed"]), *([f"calibration {', '.join(of_text)}"] if of_text else [])]
    parts += [f"draws up to {draws[-1]}"] if draws else []
    return ", ".join([*parts, *([f"draws of the text up to {texts[-1]}"] if texts else [])])


def _commit(jobs: pd.DataFrame, origins: Sequence[Mapping[str, Any]]) -> str:
    commits = ", ".join(text[:_COMMIT_LETTERS] for text in _distinct(jobs["commit"]))
    changed = " (with changes that were not committed)" if any(origin.get("dirty") for origin in origins) else ""
    return f"{commits}{changed}" if commits else ""


def _versions(origin: Mapping[str, Any]) -> str:
    packages = origin.get("packages") or {}
    python = [f"Python {origin['python']}"] if origin.get("python") else []
    return ", ".join([*python, *(f"{name} {version}" for name, version in packages.items())])


def _machine(origin: Mapping[str, Any]) -> str:
    """Describe the machine by what can change a number or a duration, without its name."""
    cores, memory = origin.get("cores"), origin.get("memory_gib")
    parts = [str(origin.get("processor") or ""), f"{cores} cores" if cores else ""]
    parts += [f"{memory:g} GiB" if memory else "", *(origin.get("gpus") or ["no GPU"]), str(origin.get("system") or "")]
    return ", ".join(part for part in parts if part)


def _tasks(scores: pd.DataFrame) -> Table | None:
    """Return a row per task and kind: metric, shots, items, chance, and the digest of the rows that were asked."""
    if scores.empty:
        return None
    bodies = []
    for kind in [*kinds_of(scores), PERPLEXITY]:
        own = scores[scores["kind"] == kind]
        rows = tuple(_task(str(task), rows) for task, rows in own.groupby("task", sort=True))
        bodies += [Body(rows, kind_name(kind))] if rows else []
    columns = (
        Column("task", words=True),
        Column("metric", words=True),
        Column("shots"),
        Column("items"),
        Column("chance", "%"),
        Column("close", "items"),
        Column("data", "digest", words=True),
    )
    return Table(
        "Close: items whose chosen option may be another one by rounding, at most in a variant. Perplexity: tokens in "
        "place of items.",
        columns,
        tuple(bodies),
    )


def _task(task: str, rows: pd.DataFrame) -> tuple[Cell, ...]:
    chance = 100 * float(rows["chance"].iloc[0])
    shots = _listed(rows["shots"].dropna() if "shots" in rows else ())
    return (
        Cell(task),
        Cell(_listed(rows["metric"])),
        Cell(shots.removesuffix(".0") or NONE),
        number(float(rows["n"].max()), ",.0f"),
        number(chance, ".4g"),
        Cell(f"{int(close)}" if (close := rows["close"].max()) == close else NONE) if "close" in rows else Cell(NONE),
        Cell(_listed(rows["data"]) if "data" in rows else NONE),
    )


def _configs(records: Sequence[JobRecord]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the settings that all records share as ``key=value``, and for each record those that they do not."""
    lines = [
        {key: f"{key}={_value(value)}" for key, value in record.config.items() if not key.startswith(_WHERE)}
        for record in records
    ]
    if not lines:
        return (), ()
    keys = dict.fromkeys(key for own in lines for key in own)
    shared = [key for key in keys if len({own.get(key) for own in lines}) == 1]
    differing = [" ".join(text for key, text in own.items() if key not in shared) for own in lines]
    return tuple(redact(lines[0][key]) for key in shared), tuple(redact(text) for text in differing if text)


def _value(value: Any) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({str(value) for value in values if value not in ("", None)})


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(_distinct(values))


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
