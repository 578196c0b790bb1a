"""Content-addressed results: keys, atomic writes, the manifest, and every path under the outputs folder.

An artifact is a folder ``store/<stage>/<key>``. Its key hashes the inputs that its stage declares, so a changed
setting makes a new artifact and an unchanged one is found again. It is built in a scratch folder and renamed into
place with its sealed manifest already inside: a folder that is there is complete, and an interrupted build leaves
nothing. Processes that share an outputs folder wait for each other's builds instead of repeating them.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pipeline.common.access import is_folder, reading, writing
from pipeline.common.files import KEPT_SECONDS, age_of, entries, open_as_new, private_name, remove_orphans, write_json
from pipeline.store.integrity import MANIFEST, damage, digest, facts_of_files, read_sealed, sealed
from pipeline.store.locks import Busy, holding, is_held
from pipeline.store.provenance import Meter

log = logging.getLogger(__name__)
# Failures that another try may not repeat: a full disk, too little memory.
_PASSING = (OSError, MemoryError)


Made = TypeVar("Made")


class SharedFailure(Exception):
    """Another job of the same sweep failed to build an artifact that this job needs; it is not tried again."""


@dataclass(frozen=True)
class Artifact:
    """A finished result: its folder, its key, and the cost of building it in this process, or None if it was found.

    See ``pipeline.store.provenance.Meter`` for ``cost``.
    """

    path: Path
    stage: str
    key: str
    cost: Mapping[str, Any] | None = None

    @property
    def built(self) -> bool:
        return self.cost is not None

    def file(self, name: str) -> Path:
        return self.path / name

    def manifest(self) -> dict[str, Any]:
        return read_sealed(self.file(MANIFEST))


@dataclass
class Store:
    """The outputs folder.

    ``on_built`` is called with every artifact that is computed and not found. ``origin`` goes into every manifest: the
    configuration, code, versions and machine of the build. ``failures`` is a folder where the jobs of a sweep record
    for each other what could not be made.
    """

    root: Path
    on_built: Callable[[Artifact], None] = field(default=lambda artifact: None)
    origin: Mapping[str, Any] = field(default_factory=dict)
    failures: Path | None = None

    def __post_init__(self) -> None:
        self.root = Path(self.root).absolute()
        self._waits = True
        # Artifacts read in full and found intact, with the state of their files: a process hashes nothing twice.
        self._intact: dict[Path, tuple[Any, ...]] = {}
        self.sweep_scratch()

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def scratch(self) -> Path:
        return self.root / "store" / ".scratch"

    @property
    def locks(self) -> Path:
        return self.root / "store" / ".locks"

    def path(self, stage: str, key: str) -> Path:
        return self.root / "store" / stage / key

    def artifacts(self) -> Iterator[Artifact]:
        """Yield every artifact in the store, intact or not."""
        for path in sorted((self.root / "store").glob("[!.]*/*")):
            if path.is_dir():
                yield Artifact(path, path.parent.name, path.name)

    def unfinished(self, stage: str, inputs: Mapping[str, object]) -> Path:
        """Return the folder where parts of an artifact outlive an interrupted build; removed once it is complete."""
        folder = self.root / "store" / ".unfinished" / f"{stage}-{digest({'stage': stage, **inputs})}"
        with writing(folder.parent):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    # --- finding and building ----------------------------------------------------------------------------------

    def find(self, stage: str, inputs: Mapping[str, object]) -> Artifact | None:
        """Return the finished, intact artifact of these inputs, or None. Raises NoAccess if that cannot be known."""
        key = digest({"stage": stage, **inputs})
        path = self.path(stage, key)
        return Artifact(path, stage, key) if is_folder(path) and self.problem(path) is None else None

    def ensure(self, stage: str, inputs: Mapping[str, object], build: Callable[[Path], None]) -> Artifact:
        """Find the artifact of these inputs, or let ``build`` write its files into a folder and keep it.

        While another process builds it, waits for that process, or raises Busy within ``waiting(False)``. A damaged
        artifact is set aside with a warning. Raises NoAccess for an artifact that this user may not read, and for a
        store that this user may not write to; SharedFailure if another job of this sweep has failed to build it.
        """
        if found := self.find(stage, inputs):
            return found
        key = digest({"stage": stage, **inputs})
        path = self.path(stage, key)
        with self._lock(stage, key):
            if found := self.find(stage, inputs):
                return found
            if is_folder(path):
                self.set_aside(path, self.problem(path) or "incomplete")
            with self._telling_failure(stage, key), self.waiting(True):
                artifact = self._build(path, inputs, build)
        self.on_built(artifact)
        return artifact

    def _build(self, target: Path, inputs: Mapping[str, object], build: Callable[[Path], None]) -> Artifact:
        stage, key = target.parent.name, target.name
        with self._scratch_folder(f"{stage}-{key}") as folder:
            with Meter() as meter:
                build(folder)
            open_as_new(folder)
            manifest = {"stage": stage, "inputs": dict(inputs), "files": facts_of_files(folder)}
            manifest |= {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
            manifest |= {"cost": meter.cost, **self.origin}
            write_json(folder / MANIFEST, sealed(manifest))
            with writing(target.parent):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.rename(folder, target)
                except OSError:
                    # A process that was taken for dead has finished it first; equal keys mean equal content.
                    if not (target / MANIFEST).is_file():
                        raise
        shutil.rmtree(self.root / "store" / ".unfinished" / f"{stage}-{key}", ignore_errors=True)
        self._intact[target] = _state(target)
        return Artifact(target, stage, key, meter.cost)

    def set_aside(self, path: Path, why: str) -> Path:
        """Move a damaged artifact or record out of the way with a warning, and return its new path."""
        aside = self.root / "store" / ".damaged" / f"{path.parent.name}-{path.name}-{uuid.uuid4().hex[:6]}"
        with writing(path):
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)
        log.warning("%s/%s is damaged (%s): quarantined as %s and recomputed", path.parent.name, path.name, why, aside)
        return aside

    def problem(self, path: Path) -> str | None:
        """Return what is wrong with an artifact, or None; intact files that have not changed are not read again.

        Raises NoAccess as `pipeline.store.integrity.damage` does.
        """
        with reading(path):
            state = _state(path)
        if self._intact.get(path) == state:
            return None
        if (problem := damage(path)) is None:
            self._intact[path] = state
        return problem

    @contextmanager
    def _telling_failure(self, stage: str, key: str) -> Iterator[None]:
        """Share a failure of the block with the other jobs of this sweep: they need not fail at it one by one."""
        note = None if self.failures is None else self.failures / f"{stage}-{key}.json"
        if note is not None and note.is_file():
            with suppress(OSError, ValueError):
                raise SharedFailure(f"{stage} failed in another job of this sweep: {read_sealed(note)['error']}")
        try:
            yield
        except _PASSING:
            raise
        except Exception as error:
            # Torch's own class for too little memory is an ordinary RuntimeError.
            if note is not None and type(error).__name__ != "OutOfMemoryError":
                with suppress(OSError):
                    write_json(note, sealed({"error": " ".join(str(error).split())}))
            raise

    # --- taking turns ------------------------------------------------------------------------------------------

    def _lock(self, stage: str, key: str) -> AbstractContextManager[None]:
        def waits() -> None:
            log.info("  waiting for %s %s, which another process is computing", stage, key)

        return holding(self.locks / f"{stage}-{key}.lock", waits if self._waits else None)

    def locked(self, stage: str, key: str) -> bool:
        """Return whether a living process builds this artifact."""
        return is_held(self.locks / f"{stage}-{key}.lock")

    def alone(self, what: str) -> AbstractContextManager[None]:
        """Hold a lock of this name, within the block, among all processes that share this outputs folder."""
        return holding(self.locks / f"{what}.lock", lambda: None)

    def at_work(self) -> AbstractContextManager[None]:
        """Mark results here as in use by this process within the block: nothing may be removed meanwhile."""
        return holding(self.locks / f"{private_name('job')}.lock", lambda: None)

    @contextmanager
    def waiting(self, waits: bool) -> Iterator[None]:
        """Set whether ``ensure``, within the block, waits for the builds of other processes; if not, it raises Busy."""
        before, self._waits = self._waits, waits
        try:
            yield
        finally:
            self._waits = before

    def in_turn(self, steps: Mapping[str, Callable[[], Made]]) -> dict[str, Made]:
        """Make several artifacts, first those that no other process is building, then the others."""
        made: dict[str, Made] = {}
        later = []
        for name, make in steps.items():
            try:
                with self.waiting(False):
                    made[name] = make()
            except Busy:
                later.append(name)
        for name in later:
            made[name] = steps[name]()
        return {name: made[name] for name in steps}

    # --- private files -----------------------------------------------------------------------------------------

    def private(self, name: str) -> Path:
        """Return a path for files that only this process needs; what it leaves there is removed once it has ended."""
        return self.scratch / private_name(name)

    @contextmanager
    def _scratch_folder(self, name: str) -> Iterator[Path]:
        folder = self.private(name)
        with writing(folder.parent):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep_scratch(self) -> None:
        """Remove half-written files of killed processes of this machine, and parts of builds that nobody continued."""
        remove_orphans(self.scratch)
        depths = {self.jobs: 1, self.tables: 1, self.figures: 2, self.report.parent: 1, self.runs: 3}
        for folder, depth in depths.items():
            for pattern in (".*", "*/.*", "*/*/.*")[:depth]:
                remove_orphans(folder, pattern)
        for path in entries(self.locks, "*.lock"):
            with suppress(OSError):
                is_held(path)
        unfinished = self.root / "store" / ".unfinished"
        remove_orphans(unfinished, "*/.*")
        for folder in entries(unfinished):
            if age_of(folder) > KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _state(path: Path) -> tuple[Any, ...]:
    """Return a state that changes whenever an artifact's files do, except by a fault of the disk."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return tuple(
        (str(file), s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for file in files for s in [file.stat()]
    )
