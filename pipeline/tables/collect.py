"""The tidy tables: every finished job's scores and measures in one place, for figures and for people."""

from __future__ import annotations

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
    """Write all tables from the records of all finished jobs; ``read`` are a job's own, in memory already."""
    records = [record for record in load_records(store.jobs) if record.status == OK]

    def tables_of(record: JobRecord) -> JobTables:
        # One table of all jobs at a time is in memory.
        return read if read is not None and read.record.job == record.job else JobTables(record, store)

    for name in (SCORES, COMPARISONS, ITEMS, RANKINGS, *STATES):
        _write([tables_of(record).table(name) for record in records], store.tables / name)
    jobs = pd.DataFrame([job_row(record) for record in records])
    # The order of columns does not depend on which job has ended first.
    options = sorted(name for name in jobs if name.startswith("pruner."))
    _write([jobs[[*(name for name in jobs if name not in options), *options]]], store.tables / JOBS)


def bring_up_to_date(outputs: Path) -> None:
    """Write the tables again where the table of jobs lacks columns of today: jobs of an earlier layout fill them."""
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
        # Readers are told of a page that has changed on disk.
        pd.concat(there, ignore_index=True).to_parquet(scratch, index=False, write_page_checksum=True)
