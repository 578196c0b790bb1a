"""Collection of the tidy tables: scores and measures of all finished jobs in one place, for figures and for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.files import replacing
from pipeline.store.artifacts import Store
from pipeline.store.records import OK, JobRecord, load_records
from pipeline.store.table_names import COMPARISONS, ITEMS, JOBS, RANKINGS, SCORES, STATES
from pipeline.tables.job_columns import JOB_COLUMNS, job_row
from pipeline.tables.job_tables import JobTables


def collect(store: Store, read: JobTables | None = None) -> None:
    """Write all tables from the records of all finished jobs; ``read`` holds one job's tables, already in memory."""
    records = [record for record in load_records(store.jobs) if record.status == OK]

    def tables_of(record: JobRecord) -> JobTables:
        # Only one table is in memory at a time, with the rows of all jobs.
        return read if read is not None and read.record.job == record.job else JobTables(record, store)

    for name in (SCORES, COMPARISONS, ITEMS, RANKINGS, *STATES):
        _write([tables_of(record).table(name) for record in records], store.tables / name)
    jobs = pd.DataFrame([job_row(record) | {"dropped": _dropped(tables_of(record))} for record in records])
    # The order of columns must not depend on which job ended first.
    options = sorted(name for name in jobs if name.startswith("pruner."))
    _write([jobs[[*(name for name in jobs if name not in options), *options]]], store.tables / JOBS)


def _dropped(tables: JobTables) -> str:
    return json.dumps(tables.dropped | {"mixers": tables.mixers})


def bring_up_to_date(outputs: Path) -> None:
    """Collect the tables again if the jobs table lacks current columns; jobs of an earlier layout fill them."""
    path = outputs / "tables" / JOBS
    try:
        there = pq.read_schema(path).names
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
