from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.store.artifacts import Store
from pipeline.store.integrity import MANIFEST, digest, sealed
from pipeline.store.locks import is_held
from pipeline.store.older_records import WITHOUT_CHANGED
from pipeline.store.records import OK, JobRecord, load_records
from pipeline.tables.job_columns import job_row


def write(text: str):
    return lambda folder: (folder / "result.txt").write_text(text)


def test_equal_inputs_are_built_once(tmp_path):
    store, built = Store(tmp_path), []
    store.on_built = lambda artifact: built.append(artifact.stage)
    first = store.ensure("stage", {"a": 1, "b": [2, 3]}, write("x"))
    again = store.ensure("stage", {"b": (2, 3), "a": 1}, write("y"))
    other = store.ensure("stage", {"a": 2, "b": [2, 3]}, write("z"))
    assert (first.key, first.built, again.built) == (again.key, True, False)
    assert other.key != first.key
    assert first.file("result.txt").read_text() == "x"
    assert built == ["stage", "stage"]


def test_manifest_lists_inputs_and_checksums(tmp_path):
    manifest = Store(tmp_path).ensure("stage", {"a": 1}, write("x")).manifest()
    assert manifest["inputs"] == {"a": 1}
    assert manifest["files"]["result.txt"]["bytes"] == 1
    assert len(manifest["files"]["result.txt"]["sha256"]) == 64


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing(tmp_path, error):
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise error

    store = Store(tmp_path)
    with pytest.raises(type(error)):
        store.ensure("stage", {}, fail)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.ensure("stage", {}, write("whole")).built


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "result.txt").write_text("y"),
        lambda path: (path / "result.txt").write_text("longer"),
        lambda path: (path / "result.txt").unlink(),
        lambda path: (path / MANIFEST).write_text("{"),
        lambda path: (path / MANIFEST).unlink(),
    ],
)
def test_a_damaged_artifact_is_set_aside_and_built_again(tmp_path, damage, caplog):
    store = Store(tmp_path)
    damage(store.ensure("stage", {}, write("x")).path)
    again = store.ensure("stage", {}, write("x"))
    assert again.built
    assert again.file("result.txt").read_text() == "x"
    assert "quarantined" in caplog.text
    assert len(list((tmp_path / "store" / ".damaged").iterdir())) == 1


def test_two_processes_build_an_artifact_once(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from pipeline.store.artifacts import Store\n"
        "def build(folder):\n print('built', flush=True); time.sleep(0.5); (folder / 'x.txt').write_text('x')\n"
        f"Store(Path({str(tmp_path)!r})).ensure('stage', {{}}, build)"
    )
    children = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(child.communicate()[0] for child in children) == ["", "", "built\n"]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert Store(tmp_path).find("stage", {}) is not None
    assert list((tmp_path / "store" / ".locks").iterdir()) == list((tmp_path / "store" / ".scratch").iterdir()) == []


def test_a_killed_build_is_cleared_at_the_next_start(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from pipeline.store.artifacts import Store\n"
        "def build(folder):\n (folder / 'half.txt').write_text('half'); print('ready', flush=True); time.sleep(60)\n"
        f"Store(Path({str(tmp_path)!r})).ensure('stage', {{}}, build)"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    # A store opened meanwhile leaves the living builder alone.
    Store(tmp_path)
    assert len(list((tmp_path / "store" / ".scratch").iterdir())) == 1
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    store = Store(tmp_path)
    assert list((tmp_path / "store" / ".scratch").iterdir()) == []
    assert store.find("stage", {}) is None


def test_keys_are_stable():
    assert digest({"a": [1, "x", None], "b": {"c": 0.5}}) == digest(json.loads('{"b":{"c":0.5},"a":[1,"x",null]}'))
    assert digest({"a": 1}) != digest({"a": 1.5})


def test_a_lock_that_was_never_written_is_taken_over(tmp_path):
    """Its process was killed between creating the file and writing its name into it."""
    store = Store(tmp_path)
    path = store.locks / "records.lock"
    path.parent.mkdir(parents=True)
    path.touch()
    assert is_held(path)
    with store.alone("records"):
        assert path.read_text()
    path.touch()
    os.utime(path, (1, 1))
    assert not is_held(path)
    assert not path.exists()


def test_a_record_without_the_names_of_changed_options_is_read_with_those_of_the_files(tmp_path):
    config = {"pruner.name": "rtn", "pruner.bits": 3, "pruner.group": 128}
    record = asdict(JobRecord("a" * 16, "", "random", "rtn", "0", status=OK, config=config, layout=WITHOUT_CHANGED))
    del record["changed"]
    (tmp_path / "earlier.json").write_text(json.dumps(sealed(record)))
    (read,) = load_records(tmp_path)
    assert json.loads(job_row(read)["changed"]) == ["bits"]
