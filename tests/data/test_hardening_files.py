"""Prompt, calibration and BEIR files from somebody else: read, or refused in one sentence; nothing waits."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from broken_models import ends, examples
from helpers import json_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.check.command_line import problems
from pipeline.common import json_lines as lines_module
from pipeline.config.probes import read_probes
from pipeline.data.calibration.file import FileText
from pipeline.evaluate.retrieval.beir import read_beir
from pipeline.evaluate.suites.by_name import LmEvalSuite
from pipeline.evaluate.suites.retrieval import RetrievalSuite

NOBODY = 65534


def calibration(path: Path) -> list[str]:
    source = FileText("file", path=str(path))
    source.identity()
    return source.documents()


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "prompts": ("p.txt", read_probes),
    "prompt rows": ("p.jsonl", read_probes),
    "calibration": ("c.txt", calibration),
    "calibration rows": ("c.jsonl", calibration),
    "zipped rows": ("c.jsonl.gz", calibration),
    "columns": ("c.parquet", calibration),
}


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """Why something is refused: one sentence that says where it is."""
    with pytest.raises(ValueError) as caught:
        read(path)
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


# --- what is not a file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("what", ["pipe", "link to a device", "directory", "link to itself", "missing"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind, what):
    name, read = READERS[kind]
    path = tmp_path / name
    if what == "pipe":
        os.mkfifo(path)
    elif what == "link to a device":
        path.symlink_to("/dev/zero")
    elif what == "directory":
        path.mkdir()
    elif what == "link to itself":
        path.symlink_to(path)
    assert ends(refusal, read, path)


@pytest.mark.parametrize("kind", READERS)
def test_what_may_not_be_read_is_refused(kind):
    name, read = READERS[kind]

    def as_nobody() -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)
        refusal(read, path)

    # The usual folder of a test would not let another user in at all.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / name
        path.write_bytes(b"x")
        path.chmod(0)
        assert ends(as_nobody)


ODD = {"nul": "a\0b.txt", "user": "~nobody-of-that-name/p.txt", "long": "x" * 5000 + ".txt", "empty": "", "blank": " "}


@pytest.mark.parametrize("path", ODD.values(), ids=ODD.keys())
def test_odd_paths_are_refused(path):
    for read in (read_probes, lambda given: FileText("file", path=given).identity()):
        with pytest.raises(ValueError, match="probes=|calibration.path"):
            read(path)
    assert RetrievalSuite("beir", sets=[path]).problems()
    assert LmEvalSuite("mine", names=["hellaswag"], include=path or " ").problems()
    for key in ("model=hf model.path", "perplexity.text"):
        *group, key = key.split()
        quoted = "'" + path + "'"
        assert problems([*group, f"{key}={quoted}"], multirun=False) or path.strip() == ""


def test_a_file_that_is_far_too_large_for_prompts_is_not_read(tmp_path):
    path = tmp_path / "p.txt"
    path.touch()
    os.truncate(path, 2**40)
    assert "give a file of prompts" in refusal(read_probes, path)


def test_a_line_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "c.jsonl.gz"
    with gzip.open(path, "wb") as packed:
        for _ in range(32):
            packed.write(b" " * 2**20)
    monkeypatch.setattr(lines_module, "LONGEST", 2**20)
    assert "line 1 is longer than 1048576 characters" in refusal(calibration, path)


# --- any bytes ---------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass"))
BYTES = st.one_of(
    st.binary(max_size=80),
    TEXT,
    st.text(max_size=20).map(lambda text: text.encode("utf-16", errors="replace")),
    st.sampled_from([b"", b"\0", b"\xef\xbb\xbf", b"\r\n\r\n", b"[" * 9999, b'{"text": 1e999}', b'{"text":' * 5000]),
    st.lists(
        st.fixed_dictionaries({}, optional={"text": st.text(max_size=5), "_id": st.integers(0, 2) | TEXT.map(str)})
    ).map(lambda rows: json_lines(*rows)),
)


@settings(max_examples=examples(60), deadline=None)
@given(kind=st.sampled_from(sorted(READERS)), content=BYTES, zipped=st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path_factory, kind, content, zipped):
    name, read = READERS[kind]
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(gzip.compress(content, mtime=0) if zipped and name.endswith(".gz") else content)
    try:
        read(path)
    except ValueError as error:
        assert path.name in str(error) and "\n" not in str(error)


@pytest.fixture(scope="module")
def columns(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("columns") / "c.parquet"
    pd.DataFrame({"text": ["one", "two", None] * 20, "number": range(60)}).to_parquet(path)
    return path


@settings(max_examples=examples(60), deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), put=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_a_spoiled_parquet_file_is_read_or_refused(columns, at, put, cut):
    content, path = columns.read_bytes(), columns.with_name("any.parquet")
    place = int(at * len(content))
    path.write_bytes(content[:place] + (b"" if cut else put + content[place + len(put) :]))
    try:
        assert all(isinstance(text, str) for text in calibration(path))
    except ValueError as error:
        assert path.name in str(error) and "\n" not in str(error)


# --- BEIR --------------------------------------------------------------------------------------------------------

PARTS = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")


@pytest.fixture
def beir(tmp_path) -> Path:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    (folder / PARTS[0]).write_bytes(json_lines(*({"_id": f"d{n}", "text": f"text {n}"} for n in range(3))))
    (folder / PARTS[1]).write_bytes(json_lines({"_id": "q", "text": "which"}))
    (folder / PARTS[2]).write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_a_set_with_a_pipe_or_a_loop_in_it_is_refused_at_once(beir, part):
    def refused(path: Path) -> None:
        assert RetrievalSuite("beir", sets=[str(path)]).problems()
        refusal(read_beir, path)

    assert read_beir(beir).size == 3
    (beir / part).unlink()
    os.mkfifo(beir / part)
    assert ends(refused, beir)
    (beir / part).unlink()
    (beir / part).symlink_to(beir / part)
    assert ends(refused, beir)
    (beir / part).unlink()
    (beir / part).mkdir()
    assert ends(refused, beir)


def test_judgements_in_another_encoding_are_named(beir):
    (beir / PARTS[2]).write_bytes("q\tdé\t1\n".encode("latin-1"))
    assert "test.tsv is not UTF-8 text" in refusal(read_beir, beir)


def test_a_set_behind_links_that_lead_nowhere_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (problem,) = RetrievalSuite("beir", sets=[str(tmp_path / "loop")]).problems()
    assert "is not a directory" in problem


@settings(max_examples=examples(60), deadline=None)
@given(part=st.sampled_from(PARTS), content=BYTES)
def test_any_bytes_in_a_set_are_read_or_refused(tmp_path_factory, part, content):
    folder = tmp_path_factory.getbasetemp() / "any-set"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "qrels").mkdir(parents=True)
    (folder / PARTS[0]).write_bytes(json_lines({"_id": "0", "text": "a"}, {"_id": "1", "text": "b"}))
    (folder / PARTS[1]).write_bytes(json_lines({"_id": "0", "text": "a"}))
    (folder / PARTS[2]).write_text("0\t1\t1\n")
    (folder / part).write_bytes(content)
    try:
        assert read_beir(folder).size > 0
    except ValueError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
