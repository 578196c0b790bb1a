"""``verify``: checks that all that is kept matches its checksums, and the tables the artifacts they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.access import NoAccess, reading
from pipeline.common.terminal import progress
from pipeline.results.inventory import Shelf, plain_json
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.integrity import damage, record_damage
from pipeline.store.records import LAYOUT, OK, OUTCOME, JobRecord, load_records
from pipeline.store.table_names import COMPARISONS, FIDELITY, ITEMS, JOBS, RANKINGS, SCORES, STATES
from pipeline.tables.job_columns import job_row
from pipeline.tables.job_tables import JobTables
from pipeline.tables.write import collect

_TABLES = (JOBS, SCORES, COMPARISONS, FIDELITY, ITEMS, RANKINGS, *STATES)


@dataclass(frozen=True)
class Problem:
    """A problem: where it is, what is wrong, and how to repair it."""

    path: Path
    what: str
    damaged: bool = False
    stale_table: bool = False


def verify(store: Store, jobs: Sequence[JobRecord] | None, repair: bool) -> int:
    """Check everything, or what some jobs need. Prints a line per problem; returns the exit status.

    ``repair`` sets damaged artifacts and records aside, as a job that meets them would, and collects the tables again.
    """
    found = [*_records(store, jobs), *_artifacts(store, jobs), *_tables(store, jobs)]
    for problem in found:
        print(f"{problem.path.relative_to(store.root)}: {problem.what}")
    if not found:
        print("no problems: all checksums match")
        return 0
    print(f"{len(found)} problem{'s' * (len(found) > 1)}")
    if not repair:
        print("--repair quarantines what is damaged; rerunning a job's command recomputes what is missing")
    else:
        _repair(store, found)
    return 1


def _repair(store: Store, found: Sequence[Problem]) -> None:
    aside = 0
    for problem in found:
        if not problem.damaged:
            continue
        if store.locked(problem.path.parent.name, problem.path.name):
            print(f"{problem.path.relative_to(store.root)} is in use and stays")
            continue
        store.set_aside(problem.path, problem.what)
        aside += 1
    if aside:
        print(
            f"{aside} quarantined in {store.root / 'store' / '.damaged'}: rerun the commands of their jobs to "
            "recompute them"
        )
    if any(problem.stale_table or problem.damaged for problem in found):
        with store.alone("records"):
            collect(store)
        print(f"the tables in {store.tables} were rebuilt")


def _records(store: Store, jobs: Sequence[JobRecord] | None) -> Iterator[Problem]:
    paths = sorted([*store.jobs.glob("*.json"), *store.runs.glob(f"**/{OUTCOME}")])
    chosen = None if jobs is None else {job.job for job in jobs}
    for path in progress(paths, "records", len(paths)):
        if chosen is not None and path.stem not in chosen and plain_json(path).get("job") not in chosen:
            continue
        try:
            problem = record_damage(path)
        except NoAccess as error:
            yield Problem(path, str(error))
            continue
        if problem is not None:
            yield Problem(path, problem, damaged=True)
        elif plain_json(path).get("layout") == LAYOUT and not load_records(path.parent, path.name):
            yield Problem(path, "it is not a job record", damaged=True)


def _artifacts(store: Store, jobs: Sequence[JobRecord] | None) -> Iterator[Problem]:
    shelf = Shelf(store)
    records = load_records(store.jobs) if jobs is None else jobs
    for record in records:
        for role, path in record.artifacts.items():
            if shelf.named(path) is None:
                yield Problem(store.root / path, f"is missing: {role} of job {record.job}")
    chosen: list[Artifact] = sorted(shelf, key=lambda artifact: artifact.path)
    if jobs is not None:
        needed = shelf.used_by([vars(job) for job in jobs])
        chosen = [artifact for artifact in chosen if artifact in needed]
    for artifact in progress(chosen, "artifacts", len(chosen)):
        try:
            if (problem := damage(artifact.path)) is not None:
                yield Problem(artifact.path, problem, damaged=True)
        except NoAccess as error:
            yield Problem(artifact.path, str(error))


# --- tables ------------------------------------------------------------------------------------------------------


def _tables(store: Store, jobs: Sequence[JobRecord] | None) -> Iterator[Problem]:
    """Check each table, job by job, against the artifacts that its rows come from; yield the problems."""
    known = {record.job: record for record in load_records(store.jobs) if record.status == OK}
    chosen = known if jobs is None else {job.job: job for job in jobs if job.status == OK}
    for name in progress(_TABLES, "tables", len(_TABLES)):
        path = store.tables / name
        sources = {job: rows for job, record in chosen.items() if (rows := _expected(record, store, name)) is not None}
        if not path.is_file():
            if sources:
                yield Problem(path, "is missing", stale_table=True)
            continue
        try:
            with reading(path):
                table = pq.read_table(path, page_checksum_verification=True).to_pandas()
        except NoAccess as error:
            yield Problem(path, str(error))
            continue
        except (OSError, pa.ArrowException) as error:
            yield Problem(path, f"cannot be read: {' '.join(str(error).split())}", stale_table=True)
            continue
        of = dict(list(table.groupby("job", sort=False)))
        for job in of if jobs is None else ():
            if job not in known:
                yield Problem(path, f"has rows of {job}, which is not a finished job", stale_table=True)
        for job, rows in sources.items():
            if job not in of or not _same(rows, of[job]):
                yield Problem(path, f"differs from the results of job {job}", stale_table=True)


def _expected(record: JobRecord, store: Store, name: str) -> pd.DataFrame | None:
    """Return the rows that a job gives to a table; None if there are none or they cannot be read (another problem)."""
    if name == JOBS:
        # The record is written once more when the job ends.
        return pd.DataFrame([job_row(record)]).drop(columns="finished")
    try:
        rows = JobTables(record, store).table(name)
    except (OSError, pa.ArrowException, ValueError):
        return None
    return rows if rows is not None and len(rows) else None


def _same(rows: pd.DataFrame, table: pd.DataFrame) -> bool:
    """Return whether a table has exactly these rows; it may have more columns, and wider types."""
    if len(rows) != len(table) or not set(rows.columns) <= set(table.columns):
        return False
    try:
        theirs = table[list(rows.columns)].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, theirs, check_dtype=False, check_exact=True)
    except AssertionError:
        return False
    return True
