"""Reads a finished W&B run back from its transaction log and compares it with what was sent.

W&B writes in a separate process, so a full disk or a killed writer loses records without an error here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

READ_SECONDS = 120
_PROGRAM = "wandb-core"


@dataclass
class Sent:
    """Contents that a run's log must have, kept up to date while the run is open.

    rows counts the values of each key in the history over time, points those of each (step metric, series); media
    holds the keys of images and tables; artifacts maps a name to {file name: size in bytes}.
    """

    config: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    points: Counter[tuple[str, str]] = field(default_factory=Counter)
    media: set[str] = field(default_factory=set)
    artifacts: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass
class RunRecord:
    """Run as read from its log. `exit_code` is None if the log ends before the run does.

    Nested values have dotted keys; numbers that JSON lacks are "NaN", "Infinity" and "-Infinity".
    step_metrics maps a series to its x axis; console holds the logged lines, system the samples of the machine's load;
    artifacts maps a name to {file name: (local path, size in bytes)}.
    """

    directory: Path
    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    step_metrics: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, dict[str, tuple[Path, int]]] = field(default_factory=dict)
    artifact_types: dict[str, str] = field(default_factory=dict)
    console: list[str] = field(default_factory=list)
    system: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None


def read_run(directory: Path) -> RunRecord:
    """Read the run in `directory` (an `offline-run-*` or `run-*` folder) as `wandb leet inspect` does.

    A damaged or cut log gives the records before the damage. Raises RuntimeError if there is no log to read.
    """
    logs = list(directory.glob("run-*.wandb"))
    if len(logs) != 1:
        raise RuntimeError(f"the log in {directory} cannot be read: there are {len(logs)} instead of one")
    answer = subprocess.run(
        _reader(logs[0].resolve()), capture_output=True, text=True, timeout=READ_SECONDS, check=False
    )
    if answer.returncode != 0:
        raise RuntimeError(f"the log in {directory} cannot be read: {answer.stderr.strip()[-300:]}")
    record = RunRecord(directory)
    for line in answer.stdout.splitlines():
        entry = json.loads(line)
        _add(record, entry["type"], entry.get(entry["type"], {}))
    return record


def _reader(path: Path) -> list[str]:
    """Return the command that prints a log as JSON lines.

    That is what `wandb leet inspect` starts. The command itself, which serves where that program is not found, would
    import wandb for every run, which takes seconds.
    """
    program = next((file for file in metadata.files("wandb") or () if file.name == _PROGRAM), None)
    if program is None or not (found := Path(str(program.locate()))).is_file():
        return [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    options = ["--no-observability", "--json", "--run-file", str(path), str(path.parent.parent)]
    return [str(found), "leet", "inspect", *options]


def _add(record: RunRecord, kind: str, body: Mapping[str, Any]) -> None:
    """Fold one record of the log into `record`; kinds that say nothing about the results are ignored."""
    if kind == "run":
        record.run.update(body)
        record.config.update(body.get("config", {}).get("update", {}))
    elif kind == "config":
        record.config.update(body.get("update", {}))
    elif kind == "summary":
        record.summary.update(body.get("update", {}))
    elif kind == "history":
        record.history.append(body.get("item", {}))
    elif kind == "metric" and "name" in body and "step_metric" in body:
        record.step_metrics[body["name"]] = body["step_metric"]
    elif kind == "artifact":
        contents = body.get("manifest", {}).get("contents", [])
        record.artifacts[body["name"]] = {
            item["path"]: (Path(item.get("local_path", "")), int(item.get("size", 0))) for item in contents
        }
        record.artifact_types[body["name"]] = body.get("type", "")
    elif kind == "output_logger":
        record.console += str(body.get("line", "")).splitlines()
    elif kind == "stats":
        record.system.append(dict(body))
    elif kind == "exit":
        record.exit_code = body.get("exit_code", 0)


def compare(sent: Sent, record: RunRecord, exit_code: int) -> str | None:
    """Return in one line what is missing from the log or differs from what was sent, or None if nothing does."""
    problems = list(_problems(sent, record, exit_code))
    if len(problems) > 5:
        problems[5:] = [f"and {len(problems) - 5} more"]
    return "; ".join(problems) or None


def _problems(sent: Sent, record: RunRecord, exit_code: int) -> Iterator[str]:
    if record.exit_code is None:
        yield "the log ends before the run does"
    elif record.exit_code != exit_code:
        yield f"exit code {record.exit_code} instead of {exit_code}"
    yield from _differences("config", sent.config, record.config)
    yield from _differences("summary", sent.summary, record.summary)
    rows = Counter(key for row in record.history for key in row)
    for key, count in sent.rows.items():
        if rows[key] != count:
            yield f"the history has {rows[key]} of {count} values of {key}"
    yield from _missing_points(sent, record)
    for key in sorted(sent.media):
        yield from _missing_media(key, record)
    for name, files in sent.artifacts.items():
        found = {path: size for path, (_, size) in record.artifacts.get(name, {}).items()}
        if found != files:
            yield f"artifact {name} contains {found or 'nothing'} instead of {files}"


def _differences(what: str, sent: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for key, value in sent.items():
        if key not in found:
            yield f"{what} {key} is missing"
        elif found[key] != value:
            yield f"{what} {key} is {found[key]!r} instead of {value!r}"


def _missing_points(sent: Sent, record: RunRecord) -> Iterator[str]:
    found = Counter(
        (step, series)
        for row in record.history
        for series in row
        if (step := record.step_metrics.get(series)) in row and step is not None
    )
    for (step, series), count in sent.points.items():
        if found[step, series] != count:
            yield f"curve {series} has {found[step, series]} of {count} values over {step}"


def _missing_media(key: str, record: RunRecord) -> Iterator[str]:
    row = next((row for row in record.history if f"{key}.path" in row), None)
    if row is None:
        yield f"{key} is missing"
        return
    path = record.directory / "files" / row[f"{key}.path"]
    if not path.is_file() or path.stat().st_size != row.get(f"{key}.size"):
        yield f"the file of {key} is missing or truncated: {path}"
