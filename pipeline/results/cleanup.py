"""``gc`` and ``remove``: free space. Without ``--yes``, both only show what would be removed, and its size.

Only folders that the store itself lists are ever removed, never a path that a record or a manifest names.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.files import KEPT_SECONDS, age_of
from pipeline.common.terminal import progress
from pipeline.results.inventory import Shelf, plain_json, readable, size_of
from pipeline.results.jobs import Refused, pick
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.integrity import record_damage
from pipeline.store.locks import is_held
from pipeline.store.records import OK, OUTCOME
from pipeline.tables.write import collect

# Logs of a failed command are kept for a day, to find out why it failed.
_LOG_SECONDS = 86400
_NOTHING_YET = "nothing was removed: add --yes to remove these"
_UNFINISHED = re.compile(r"(?P<stage>.+)-(?P<key>[0-9a-f]{16})")


@dataclass(frozen=True)
class Item:
    """Something to remove: its path and why nobody needs it; ``artifact`` if it is one."""

    path: Path
    why: str
    artifact: Artifact | None = None


def collect_garbage(store: Store, yes: bool) -> int:
    """Remove what no job refers to. Returns the exit status.

    While a process works in this folder, it may need the rest: only what was set aside as damaged is removed.
    """
    busy = _at_work(store)
    items = list(_damaged(store))
    if busy:
        print(f"{store.root} is in use ({', '.join(busy)}): what no job refers to stays until that process is done")
    else:
        items += [*_unused(store), *_unfinished(store), *_failed_commands(store)]
    if not items:
        print("nothing to remove")
        return 0
    _show(items, store)
    if not yes:
        print(_NOTHING_YET)
        return 0
    return _remove(items, store)


def remove_jobs(store: Store, words: Sequence[str], yes: bool) -> int:
    """Remove jobs and what no other job needs. Returns the exit status. Raises Refused while a process is at work."""
    ids = pick([path.stem for path in store.jobs.glob("*.json")], words)
    records = {path.stem: plain_json(path) for path in store.jobs.glob("*.json")}
    _check_readable(store, [path for path in store.jobs.glob("*.json") if path.stem not in ids])
    shelf = Shelf(store)
    others = shelf.used_by(facts for job, facts in records.items() if job not in ids)
    mine = shelf.used_by(records[job] for job in ids) - others
    items = [Item(store.jobs / f"{job}.json", "the job's record") for job in ids]
    items += [Item(artifact.path, "no other job needs it", artifact) for artifact in sorted(mine, key=lambda a: a.path)]
    _show(items, store)
    if not yes:
        print(_NOTHING_YET)
        return 0
    if busy := _at_work(store):
        raise Refused(
            f"{store.root} is in use ({', '.join(busy)}) and the process may need results of these jobs: try again "
            "when it is done"
        )
    # Records go first: after an interruption, no job refers to the rest.
    with store.alone("records"):
        status = _remove(items, store)
        collect(store)
    print("the tables were rebuilt; logs in runs/ and W&B runs stay")
    return status


# --- what can go -------------------------------------------------------------------------------------------------


def _damaged(store: Store) -> Iterator[Item]:
    for path in sorted((store.root / "store" / ".damaged").glob("*")):
        yield Item(path, "quarantined as damaged")


def _unused(store: Store) -> Iterator[Item]:
    paths = list(store.jobs.glob("*.json"))
    _check_readable(store, paths)
    shelf = Shelf(store)
    needed = shelf.used_by(plain_json(path) for path in paths)
    for artifact in sorted(shelf, key=lambda artifact: artifact.path):
        if artifact not in needed:
            yield Item(artifact.path, "no job refers to it", artifact)


def _unfinished(store: Store) -> Iterator[Item]:
    for path in sorted((store.root / "store" / ".unfinished").glob("*")):
        name = _UNFINISHED.fullmatch(path.name)
        if age_of(path) > KEPT_SECONDS and not (name and store.locked(name["stage"], name["key"])):
            yield Item(path, "left unfinished more than two weeks ago")


def _failed_commands(store: Store) -> Iterator[Item]:
    """Yield the logs of commands without a finished job, once nothing has been written there for a day."""
    for path in sorted(store.runs.glob("*")):
        states = [plain_json(outcome).get("status") for outcome in path.rglob(OUTCOME)]
        if path.is_dir() and OK not in states and min(map(age_of, [path, *path.rglob("*")])) > _LOG_SECONDS:
            yield Item(path, "logs of a command without a finished job")


def _check_readable(store: Store, records: Sequence[Path]) -> None:
    """Raise Refused if a record is damaged: the artifacts that it needs are then unknown."""
    if bad := [path.name for path in records if record_damage(path) is not None]:
        raise Refused(
            f"records of jobs are damaged ({', '.join(sorted(bad))}), so what they need is unknown: quarantine them "
            "first with `python -m pipeline.results verify --repair`, then rerun the commands of these jobs"
        )


def _at_work(store: Store) -> list[str]:
    """Return the names of the locks that living processes hold."""
    return sorted(path.stem for path in store.locks.glob("*.lock") if is_held(path))


# --- doing it ----------------------------------------------------------------------------------------------------


def _show(items: Sequence[Item], store: Store) -> None:
    total = 0
    for item in items:
        total += (size := size_of(item.path))
        print(f"{readable(size):>10}  {item.path.relative_to(store.root)}  ({item.why})")
    print(f"{readable(total):>10}  in total")


def _remove(items: Sequence[Item], store: Store) -> int:
    """Remove the items, except those locked in the meantime. Returns exit status 1 if something stayed, else 0."""
    stayed = []
    for item in progress(items, "removing", len(items)):
        try:
            if item.artifact is None:
                _delete(item.path)
            elif store.locked(item.artifact.stage, item.artifact.key):
                stayed.append(f"{item.path.relative_to(store.root)} is in use and stays")
            else:
                _delete_artifact(item.artifact, store)
        except OSError as error:
            stayed.append(f"{item.path.relative_to(store.root)} cannot be removed: {error}")
    for sentence in stayed:
        print(sentence)
    print(f"{len(items) - len(stayed)} removed")
    return 1 if stayed else 0


def _delete_artifact(artifact: Artifact, store: Store) -> None:
    """Remove an artifact in one step, holding its lock as its builder would: nobody finds half of it."""
    with store.alone(f"{artifact.stage}-{artifact.key}"):
        away = store.private(f"{artifact.stage}-{artifact.key}")
        away.parent.mkdir(parents=True, exist_ok=True)
        artifact.path.rename(away)
    _delete(away)
    with suppress(OSError):
        artifact.path.parent.rmdir()


def _delete(path: Path) -> None:
    """Delete a file, a link itself rather than its target, or a folder."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
