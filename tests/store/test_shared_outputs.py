"""Several users of one outputs folder: what one of them makes, the others find; what is closed to them, they are told.

Two real users of one group, in processes of their own; only root can become them.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from pipeline.common.access import NoAccess
from pipeline.common.errors import plain
from pipeline.common.files import write_json
from pipeline.export.hf import exported
from pipeline.prune.decision import Change
from pipeline.store.artifacts import Store
from pipeline.store.integrity import MANIFEST, damage, read_sealed
from pipeline.store.records import JobRecord, load_records
from pipeline.tables.stored import DamagedTable, read_table
from pipeline.tables.write import collect

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
ANN, BEN, GROUP = 61001, 61002, 61010


@pytest.fixture
def outputs() -> Iterator[Path]:
    """A folder as `mkdir outputs; chgrp GROUP outputs; chmod 2775 outputs` gives it, where both users get to."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    folder = root / "outputs"
    folder.mkdir()
    os.chown(folder, ANN, GROUP)
    folder.chmod(0o2775)
    yield folder
    shutil.rmtree(root)


def as_user(user: int, umask: int, act: Callable[[], object]) -> str:
    """What ``act`` gives, as text, or the error it ends in, in a process of that user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(user)
            os.umask(umask)
            try:
                said = str(act())
            except OSError as error:
                said = f"{type(error).__name__}: {error}"
            except BaseException:
                said = traceback.format_exc()
            os.write(writer, said.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


def build(folder: Path) -> None:
    """Files by every kind of writer that artifacts have."""
    save_file({"x": torch.ones(3)}, folder / "states.safetensors")
    pd.DataFrame({"x": [1]}).to_parquet(folder / "scores.parquet")
    (folder / "notes.json").write_text("{}")
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(b"temporary")
    Change(weights={"w": torch.ones(2)}).save(Path(tempfile.mkdtemp(dir=folder)) / "block-000.safetensors")


def ensure(outputs: Path) -> Callable[[], object]:
    return lambda: "built" if Store(outputs).ensure("calibration", {"a": 1}, build).built else "found"


def modes(folder: Path) -> set[tuple[bool, int]]:
    """Whether it is a folder, and its rights, of everything below."""
    found = [(path.is_dir(), stat.S_IMODE(path.lstat().st_mode) & 0o777) for path in folder.rglob("*")]
    return set(found)


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o002, 0o664, 0o775), (0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_files_and_folders_follow_the_umask(outputs, umask, file, folder):
    assert as_user(ANN, umask, ensure(outputs)) == "built"
    assert modes(outputs) == {(False, file), (True, folder)}


def test_two_users_find_what_the_other_has_made(outputs):
    assert [as_user(user, 0o002, ensure(outputs)) for user in (ANN, BEN, ANN)] == ["built", "found", "found"]
    assert not (outputs / "store" / ".damaged").exists()
    (artifact,) = (outputs / "store" / "calibration").iterdir()
    assert {path.stat().st_gid for path in outputs.rglob("*")} == {GROUP}
    # The other user may write on: another artifact of the same stage, and one in the place of a damaged one.
    other = lambda: Store(outputs).ensure("calibration", {"a": 2}, build).built  # noqa: E731
    assert as_user(BEN, 0o002, other) == "True"
    (artifact / "scores.parquet").write_text("cut")
    assert as_user(BEN, 0o002, ensure(outputs)) == "built"
    assert as_user(ANN, 0o002, ensure(outputs)) == "found"
    assert len(list((outputs / "store" / ".damaged").iterdir())) == 1


def test_what_another_user_keeps_closed_is_told_and_left(outputs):
    """Ann forgot her umask: her folders are closed to Ben, then her files alone."""
    assert as_user(ANN, 0o077, ensure(outputs)) == "built"
    told = as_user(BEN, 0o002, ensure(outputs))
    store = outputs / "store"
    assert told == (
        f"NoAccess: no permission to read {store}, which belongs to user {ANN}: ask its owner to run "
        f"`chmod -R g+rX {store}`, or give another outputs folder"
    )
    (artifact,) = (outputs / "store" / "calibration").iterdir()
    for path in [store, *store.rglob("*")]:
        if path.is_dir():
            path.chmod(0o2775)
    before = sorted(path.name for path in outputs.rglob("*"))
    told = as_user(BEN, 0o002, ensure(outputs))
    assert told.startswith(f"NoAccess: no permission to read {artifact}")
    assert f"`chmod -R g+rX {artifact}" in told
    assert as_user(BEN, 0o002, lambda: damage(artifact)).startswith("NoAccess: no permission to read")
    assert sorted(path.name for path in outputs.rglob("*")) == before
    # The way out that the sentence names is one.
    os.system(f"chmod -R g+rX {artifact}")
    assert as_user(BEN, 0o002, ensure(outputs)) == "found"


@pytest.mark.parametrize("name", ["states.safetensors", MANIFEST])
def test_one_closed_file_is_not_damage(outputs, name):
    as_user(ANN, 0o002, ensure(outputs))
    (artifact,) = (outputs / "store" / "calibration").iterdir()
    (artifact / name).chmod(0o600)
    assert "no permission to read" in as_user(BEN, 0o002, ensure(outputs))
    assert not (outputs / "store" / ".damaged").exists()
    assert as_user(ANN, 0o002, ensure(outputs)) == "found"


def test_a_store_that_may_be_read_alone_says_so(outputs):
    assert as_user(ANN, 0o022, ensure(outputs)) == "built"
    assert as_user(BEN, 0o002, ensure(outputs)) == "found"
    told = as_user(BEN, 0o002, lambda: Store(outputs).ensure("other", {}, build))
    locks = outputs / "store" / ".locks"
    assert told == (
        f"NoAccess: no permission to write to {locks}, which belongs to user {ANN}: ask its owner to run "
        f"`chmod -R g+rwX {locks}`, or give another outputs folder"
    )


def test_a_lock_of_another_user_is_waited_for_taken_over_or_told(outputs):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(GROUP)
        os.setuid(ANN)
        os.umask(0o002)
        with Store(outputs).alone("stage-key"):
            os.write(writer, b"held")
            time.sleep(60)
        os._exit(0)
    assert os.read(reader, 4) == b"held"
    path = outputs / "store" / ".locks" / "stage-key.lock"

    def locked() -> bool:
        return Store(outputs).locked("stage", "key")

    def taken() -> str:
        with Store(outputs).alone("stage-key"):
            return "taken"

    assert as_user(BEN, 0o002, locked) == "True"
    # Of one that cannot be read, nobody knows whether its holder lives.
    path.chmod(0o600)
    assert as_user(BEN, 0o002, taken).startswith(f"NoAccess: no permission to read {path}")
    path.chmod(0o644)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for pipe in (reader, writer):
        os.close(pipe)
    assert as_user(BEN, 0o002, taken) == "taken"
    assert not path.exists()


def test_records_and_tables_that_are_closed_are_told(outputs):
    def job() -> object:
        store = Store(outputs)
        JobRecord("a1", "s", "m", "p", "0.5", variant_id="v", status="ok").save(store)
        collect(store)
        return len(load_records(store.jobs))

    assert as_user(ANN, 0o002, job) == "1"
    assert modes(outputs / "jobs") | modes(outputs / "tables") == {(False, 0o664)}
    assert as_user(BEN, 0o002, job) == "1"
    record, table = outputs / "jobs" / "a1.json", outputs / "tables" / "jobs.parquet"
    record.chmod(0o600)
    table.chmod(0o600)
    os.chown(record, ANN, GROUP)
    os.chown(table, ANN, GROUP)
    for act in (job, lambda: read_sealed(record), lambda: load_records(outputs / "jobs")):
        assert as_user(BEN, 0o002, act).startswith(f"NoAccess: no permission to read {record}")
    told = as_user(BEN, 0o002, lambda: read_table(outputs, "jobs"))
    assert told.startswith(f"{DamagedTable.__name__}: no permission to read {table}")
    assert not (outputs / "store" / ".damaged").exists()


def test_an_export_that_is_closed_is_not_taken_for_something_else(outputs):
    write_json(outputs / "pruning.json", {})
    (outputs / "pruning.json").chmod(0o600)
    told = as_user(BEN, 0o002, lambda: exported(outputs))
    assert told.startswith(f"NoAccess: no permission to read {outputs / 'pruning.json'}")


def test_any_refusal_of_the_system_is_a_sentence(outputs):
    closed = outputs / "closed"
    closed.mkdir(mode=0o700)

    def act() -> str:
        try:
            (closed / "runs").mkdir()
        except OSError as error:
            return plain(error)
        return "made"

    told = as_user(BEN, 0o002, act)
    assert (
        told
        == f"no permission to write to {closed}, which belongs to root: ask its owner to run `chmod -R g+rwX {closed}`"
    )


def test_a_disk_that_does_not_answer_is_no_damage(tmp_path, monkeypatch):
    store = Store(tmp_path)
    path = store.ensure("stage", {}, build).path

    def fail(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(116, "Stale file handle", str(self))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(NoAccess, match="Stale file handle.*this does not mean that it is damaged: try again"):
        Store(tmp_path).ensure("stage", {}, build)
    monkeypatch.undo()
    assert not (tmp_path / "store" / ".damaged").exists()
    assert not Store(tmp_path).ensure("stage", {}, build).built
    assert path.is_dir()
