"""``compare``: how jobs differ in configuration and machine, and their scores and measures side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.analysis.prompt_means import mean_over_prompts
from pipeline.analysis.score_rows import differing_conditions
from pipeline.common.terminal import show_table
from pipeline.config.schema import flatten
from pipeline.measure.columns import further_columns
from pipeline.results.listing import shortest
from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord
from pipeline.tables.job_columns import labels_of
from pipeline.tables.job_tables import JobTables

_MEASURES = ["cos_h", "cos_z", "cos_p", "kl"]
# Where a result was computed does not change what it means.
_INCIDENTAL = ("environment.SLURM_JOB_ID", "environment.SLURM_ARRAY_TASK_ID", "host")
_ABSENT = "–"


def compare(records: Sequence[JobRecord], store: Store) -> None:
    """Print differences, scores and measures of two or more jobs."""
    length = shortest({record.job for record in records})
    labels = labels_of(records)
    names = [f"{record.job[:length]}\n{labels.get(record.variant_id, record.pruner)}" for record in records]
    _differences("configuration", [record.config for record in records], names)
    _differences("code, versions and machine", [flatten(record.origin) for record in records], names)
    tables = [JobTables(record, store) for record in records]
    _scores(tables, names)
    _measures(tables, names)
    for sentence in warnings(records):
        print(f"! {sentence}")


def warnings(records: Sequence[JobRecord]) -> list[str]:
    """Return the reasons why numbers of these jobs cannot be compared, one sentence each."""
    ways = {record.settings_id: f"{record.job}: {record.settings}" for record in reversed(records)}
    if len(ways) < 2:
        return []
    what = [", ".join(f"{key}={value}" for key, value in own.items()) for own in differing_conditions(records)]
    return [
        f"the jobs have different settings ({'; '.join(dict.fromkeys(what))}), so their numbers are not comparable:\n  "
        "  " + "\n    ".join(reversed(ways.values()))
    ]


def _differences(title: str, facts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    keys = dict.fromkeys(key for each in facts for key in each if key not in _INCIDENTAL)
    rows = []
    for key in keys:
        values = [_text(each[key]) if key in each else _ABSENT for each in facts]
        # A job without any facts (a baseline that another job has recorded) does not count as different.
        if len({value for value, each in zip(values, facts, strict=True) if each}) > 1:
            rows.append([key, *values])
    if rows:
        show_table(f"{title}: what differs", ["key", *names], rows)
    else:
        print(f"{title}: no difference\n")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _scores(tables: Sequence[JobTables], names: Sequence[str]) -> None:
    columns = {}
    for name, own in zip(names, tables, strict=True):
        if (scores := own.scores) is not None:
            main = scores[scores["main"]]
            columns[name] = main.set_index(["kind", "task", "metric"])["value"]
    _show("main scores", ["kind", "task", "metric"], columns, names)


def _measures(tables: Sequence[JobTables], names: Sequence[str]) -> None:
    """Print means over prompts of their means at the first temperature: of every layer, or of the final states."""
    columns = {}
    for name, own in zip(names, tables, strict=True):
        if (measures := own.measures) is not None:
            first = measures[measures["temperature"] == measures["temperature"].iloc[0]]
            shown = [*_MEASURES, *further_columns(first)]
            columns[name] = mean_over_prompts(first, shown, ["protocol"]).set_index("protocol").stack()
    _show("measures: means at the first temperature", ["protocol", "measure"], columns, names)


def _show(title: str, index: Sequence[str], columns: Mapping[str, pd.Series], names: Sequence[str]) -> None:
    if not columns:
        return
    frame = pd.DataFrame(dict(columns)).reindex(columns=list(names))
    rows = [[*key, *(float(value) for value in row)] for key, row in zip(frame.index, frame.to_numpy(), strict=True)]
    show_table(title, [*index, *names], rows)
