"""Collection of the tidy tables: scores and measures of all finished jobs in one place, for figures and for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.files import replacing, write_json
from pipeline.common.sources import sources_digest
from pipeline.store.artifacts import Store
from pipeline.store.integrity import digest, read_sealed, sealed
from pipeline.store.records import OF_A_RUN, OK, JobRecord, load_records
from pipeline.store.table_names import COMPARISONS, FIDELITY, ITEMS, JOBS, RANKINGS, SCORES, STATES
from pipeline.tables.job_columns import JOB_COLUMNS, job_row
from pipeline.tables.job_tables import JobTables

# Tables whose rows come from artifacts; the other one, of the jobs, comes from their records.
_OF_ARTIFACTS = (SCORES, COMPARISONS, FIDELITY, ITEMS, RANKINGS, *STATES)
# What the tables were written from.
_SEAL = ".tables.json"


def collect(store: Store, read: JobTables | None = None, found: bool = False) -> None:
    """Write all tables from the records of all finished jobs; ``read`` holds one job's tables, already in memory.

    Where that job has ``found`` all its results, only the times in the jobs table change, unless the other tables are
    not those that this code writes from the records. Rows are in the order in which the jobs were computed.
    """
    finished = [record for record in load_records(store.jobs) if record.status == OK]
    records = sorted(finished, key=lambda record: record.started)
    source = digest([sources_digest(), *(_source(record) for record in records)])

    def tables_of(record: JobRecord) -> JobTables:
        # Only one table is in memory at a time, with the rows of all jobs.
        return read if read is not None and read.record.job == record.job else JobTables(record, store)

    if not (found and _read_seal(store) == _seal_of(store, source)):
        for name in _OF_ARTIFACTS:
            _write([tables_of(record).table(name) for record in records], store.tables / name)
        write_json(store.tables / _SEAL, sealed(_seal_of(store, source)))
    jobs = pd.DataFrame([job_row(record) | {"dropped": _dropped(tables_of(record))} for record in records])
    # The order of columns must not depend on which job ended first.
    options = sorted(name for name in jobs if name.startswith("pruner."))
    _write([jobs[[*(name for name in jobs if name not in options), *options]]], store.tables / JOBS)


def _source(record: JobRecord) -> dict[str, Any]:
    """Return what the tables hold of a record, and where it was computed."""
    return {name: value for name, value in asdict(record).items() if name not in OF_A_RUN}


def _seal_of(store: Store, source: str) -> dict[str, Any]:
    """Return what tells whether the tables that come from artifacts are still those written from this source."""
    files = [store.tables / name for name in _OF_ARTIFACTS]
    states = {path.name: path.stat() for path in files if path.is_file()}
    return {
        "records": source,
        "files": {name: [state.st_size, state.st_mtime_ns, state.st_ino] for name, state in states.items()},
    }


def _read_seal(store: Store) -> dict[str, Any] | None:
    try:
        return read_sealed(store.tables / _SEAL)
    except ValueError:
        return None


def _dropped(tables: JobTables) -> str:
    return json.dumps(tables.dropped | {"mixers": tables.mixers})


def bring_up_to_date(outputs: Path) -> None:
    """Collect the tables again if they are not there, or if the jobs table lacks current columns.

    Jobs of an earlier layout fill these columns. A damaged table is left to those who read it.
    """
    path = outputs / "tables" / JOBS
    try:
        there = pq.read_schema(path).names if path.exists() else []
    except (OSError, pa.ArrowException):
        return
    if set(JOB_COLUMNS) <= set(there):
        return
    store = Store(outputs)
    if any(record.status == OK for record in load_records(store.jobs)):
        with store.alone("records"):
            collect(store)


def _write(frames: Iterable[pd.DataFrame | None], path: Path) -> None:
    there = [frame for frame in frames if frame is not None and len(frame)]
    if not there:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as scratch:
        # With checksums, readers notice a page that has changed on disk.
        pd.concat(there, ignore_index=True).to_parquet(scratch, index=False, write_page_checksum=True)
