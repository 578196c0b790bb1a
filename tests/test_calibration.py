from __future__ import annotations

import gzip
import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.calibration import hub
from pipeline.calibration.base import CalibrationSet, batches, load, save, tokenizer_digest
from pipeline.calibration.file import FileText
from pipeline.calibration.hub import HubText
from pipeline.calibration.packaged import PackagedText
from pipeline.choices import CONF
from pipeline.models.random import RandomModel
from pipeline.store import Store

TEXTS = ("one two three", "", "eins zwei drei vier", "x", "un deux", "\n \n", "uno dos tres cuatro cinco", "é")


@dataclass(frozen=True)
class Listed(CalibrationSet):
    texts: tuple[str, ...] = TEXTS

    def documents(self):
        return list(self.texts)


@dataclass(frozen=True)
class Streamed(CalibrationSet):
    texts: tuple[str, ...] = TEXTS
    buffer: ClassVar[int | None] = 3

    def documents(self) -> Iterator[str]:
        yield from self.texts


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return RandomModel(name="random").tokenizer(Store(tmp_path_factory.mktemp("store")))


def pieces(tokens: list[int], end: int) -> list[tuple[int, ...]]:
    """Tokens split at the end-of-text token."""
    found: list[list[int]] = [[]]
    for token in tokens:
        if token == end:
            found.append([])
        else:
            found[-1].append(token)
    return [tuple(piece) for piece in found]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


# --- tokenize ------------------------------------------------------------------------------------------------------

DOCUMENTS = st.lists(st.text(st.characters(codec="utf-8", categories=("L", "N", "Z")), max_size=30), max_size=150)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([Listed, Streamed]), DOCUMENTS, st.integers(1, 6), st.integers(1, 40), st.booleans(), st.integers(0)
)
def test_tokenizing_gives_exactly_what_was_asked_for_or_says_what_is_missing(
    tokenizer, kind, documents, sequences, length, packing, seed
):
    source = kind("drawn", sequences, length, packing, seed, texts=tuple(documents))
    wanted = [tuple(tokenizer(text).input_ids) for text in documents if text.strip()]
    try:
        found = source.tokenize(tokenizer)
    except ValueError as error:
        enough = sum(len(tokens) + 1 for tokens in wanted) >= sequences * length
        if not packing:
            enough = length > 1 and sum(len(tokens) > 1 for tokens in wanted) >= sequences
        assert not enough
        assert "missing" in str(error) or "too short" in str(error)
        return
    assert len(found) == sequences
    assert all(tokens.dtype == torch.int64 and tokens.ndim == 1 for tokens in found)
    assert all(tokenizer.pad_token_id not in tokens for tokens in found)
    assert same(found, source.tokenize(tokenizer))
    if packing:
        assert {len(tokens) for tokens in found} == {length}
        *whole, rest = pieces(torch.cat(found).tolist(), tokenizer.eos_token_id)
        for piece in whole:
            wanted.remove(piece)
        assert not rest or any(tokens[: len(rest)] == rest for tokens in wanted)
    else:
        assert all(2 <= len(tokens) <= length for tokens in found)
        unused = [tokens[:length] for tokens in wanted]
        for tokens in found:
            unused.remove(tuple(tokens.tolist()))


def test_documents_without_packing_come_in_shuffled_order_and_follow_the_seed(tokenizer):
    texts = tuple(f"document {number}" for number in range(200))
    source = Listed("listed", sequences=200, packing=False, texts=texts)
    order = [tokenizer.decode(tokens) for tokens in source.tokenize(tokenizer)]
    other = [tokenizer.decode(tokens) for tokens in replace(source, seed=1).tokenize(tokenizer)]
    assert sorted(order) == sorted(other) == sorted(texts)
    assert len({tuple(order), tuple(other), texts}) == 3


def test_a_tokenizer_that_pads_and_cuts_for_others_does_neither_here(tokenizer):
    source = Listed("listed", sequences=3, packing=False, texts=("a long document", "short", "middle one"))
    plain = source.tokenize(tokenizer)
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert same(plain, source.tokenize(tokenizer))


def test_a_stream_is_read_only_as_far_as_needed(tokenizer):
    reads = []

    class Endless(Streamed):
        def documents(self):
            while True:
                reads.append(1)
                yield "some text that never ends"

    assert len(Endless("endless", sequences=100, length=16).tokenize(tokenizer)) == 100
    assert len(reads) < 300


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"sequences": 9, "length": 100}, r"has \d+ tokens, but 9 sequences of 100 need 900: \d+ are missing. Lower"),
        ({"sequences": 9, "packing": False}, "has 6 documents of at least 2 tokens.* 3 are missing. Lower .*packing"),
        ({"sequences": 1, "length": 1, "packing": False}, "length=1 is too short .* at least 2"),
    ],
)
def test_too_little_text_says_how_much_is_missing(tokenizer, values, expected):
    with pytest.raises(ValueError, match=expected):
        Listed("listed", **values, texts=(*TEXTS, "six")).tokenize(tokenizer)


# --- batches, save, load -------------------------------------------------------------------------------------------

SEQUENCES = st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6).map(torch.tensor), max_size=20)


@given(SEQUENCES, st.integers(1, 5))
def test_batches_hold_every_sequence_once_with_its_equals_the_longest_first(sequences, size):
    found = batches(sequences, size)
    assert all(1 <= len(batch) <= size and batch.dtype == torch.int64 for batch in found)
    lengths = [batch.shape[1] for batch in found]
    assert lengths == sorted(lengths, reverse=True)
    stable = sorted(sequences, key=len, reverse=True)
    assert same([row for batch in found for row in batch], stable)
    sizes = Counter(len(sequence) for sequence in sequences)
    assert len(found) == sum(math.ceil(count / size) for count in sizes.values()), "as few batches as possible"


@given(sequences=SEQUENCES)
def test_saved_sequences_load_as_they_were(sequences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    save(sequences, folder)
    loaded = load(folder)
    assert [path.name for path in folder.iterdir()] == ["tokens.safetensors"]
    assert same(loaded, sequences)
    assert all(tokens.dtype == torch.int64 for tokens in loaded)


# --- tokenizer digest ----------------------------------------------------------------------------------------------


def made(vocabulary=("a", "b", "ab"), merges=(("a", "b"),), normalizer=None, **special) -> PreTrainedTokenizerFast:
    rules = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(vocabulary)}, merges=list(merges)))
    if normalizer is not None:
        rules.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=rules, **{"eos_token": "<end>", **special})


def test_tokenizer_digest_is_the_same_wherever_the_tokenizer_came_from_and_however_it_was_used(tokenizer, tmp_path):
    expected = tokenizer_digest(tokenizer)
    for folder in (tmp_path / "here", tmp_path / "there"):
        tokenizer.save_pretrained(folder)
        assert tokenizer_digest(AutoTokenizer.from_pretrained(folder)) == expected
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert tokenizer_digest(tokenizer) == expected
    assert len(expected) == 16
    assert int(expected, 16) >= 0


def test_tokenizer_digest_differs_with_everything_that_changes_tokens():
    variants = [
        made(),
        made(vocabulary=("a", "c", "ac"), merges=(("a", "c"),)),
        made(vocabulary=("b", "a", "ab")),
        made(merges=()),
        made(normalizer=normalizers.Lowercase()),
        made(eos_token="<stop>"),
        made(pad_token="<end>"),
    ]
    assert len({tokenizer_digest(variant) for variant in variants}) == len(variants)
    assert tokenizer_digest(made()) == tokenizer_digest(made())


def test_tokenizer_digest_of_a_tokenizer_without_fast_rules():
    class Slow:
        special_tokens_map: ClassVar[dict[str, str]] = {"eos_token": "<end>"}

        def __init__(self, vocabulary):
            self.get_vocab = lambda: vocabulary

    assert tokenizer_digest(Slow({"a": 0})) == tokenizer_digest(Slow({"a": 0})) != tokenizer_digest(Slow({"a": 1}))


# --- files ---------------------------------------------------------------------------------------------------------


def lines(*rows: object) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


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
    assert kept(written(tmp_path / "rows.jsonl", lines(*ROWS) + b"\n\n")) == KEPT
    assert kept(written(tmp_path / "rows.JSONL.gz", gzip.compress(lines(*ROWS)))) == KEPT
    assert kept(FileText("file", path=str(tmp_path / "rows.parquet"))) == KEPT
    assert kept(FileText("file", path=str(tmp_path / "words.parquet"))) == KEPT
    assert kept(written(tmp_path / "marked.txt", b"\xef\xbb\xbfone\r\ntwo")) == ["one\ntwo"]
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.TXT").write_text("first")
    assert kept(FileText("file", path=str(tmp_path))) == ["first", "second", "one\ntwo"]


def test_another_field_can_hold_the_text(tmp_path):
    pd.DataFrame({"a.b": ["x y"], "text": [1]}).to_parquet(tmp_path / "rows.parquet")
    assert kept(FileText("file", path=str(tmp_path / "rows.parquet"), field="a.b")) == ["x y"]
    source = written(tmp_path / "rows.jsonl", lines({"body": "x y"}))
    assert kept(replace(source, field="body")) == ["x y"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text", "suffix that is not supported; give a .txt, .jsonl, .jsonl.gz or .parquet file"),
        ("a.txt", b"\xff\xfe\x00", "is not UTF-8 text .*save it as UTF-8"),
        ("a.jsonl", b'{"text": "\xff"}', "is not UTF-8 text"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": ', "a.jsonl line 3 is no JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1 is no JSON"),
        ("a.jsonl", b'["text"]', "line 1 is no JSON object"),
        ("a.jsonl", lines({"text": "x"}, {"texts": "y", "id": 1}), "line 2 has no field text; did you mean texts"),
        ("a.jsonl", lines({"id": 1, "url": "y"}), "has no field text; there are id, url: set calibration.field"),
        ("a.jsonl", b"{}", "no fields at all"),
        ("a.jsonl", lines({"text": 5}), "field text is int, not text"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1: field text is no valid Unicode"),
        ("a.jsonl.gz", b"no gzip", "no complete gzip file"),
        ("a.jsonl.gz", gzip.compress(lines({"text": "x" * 99}), mtime=0)[:-9], "no complete gzip file"),
        ("a.parquet", b"no parquet", "no readable parquet file"),
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
    with pytest.raises(ValueError, match="no field text; did you mean texts\\? there are texts, text_id"):
        FileText("file", path=str(path)).documents()
    with pytest.raises(ValueError, match="field text_id is int64, not text"):
        FileText("file", path=str(path), field="text_id").documents()


def test_a_path_without_text_is_refused_in_plain_words(tmp_path):
    (tmp_path / "sample.jsonl").write_text("")
    for path, expected in (
        (tmp_path / "smaple.jsonl", "is no file and no directory; did you mean .*sample.jsonl"),
        (tmp_path, "directory without .txt files"),
        (tmp_path / ("x" * 5000), "cannot be read"),
        ("", "is empty"),
        ("~nobody-of-that-name/x.txt", "is no file"),
    ):
        with pytest.raises(ValueError, match=expected):
            FileText("file", path=str(path)).identity()


def test_an_empty_file_is_missing_all_its_tokens(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="has 0 tokens"):
        written(tmp_path / "empty.jsonl", b"").tokenize(tokenizer)


def test_identity_follows_the_content_and_not_the_place(tmp_path):
    content = lines({"text": "x"})
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


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["a.txt", "a.jsonl", "a.jsonl.gz", "a.parquet"]),
    content=st.binary(max_size=60) | st.lists(JSON, max_size=3).map(lambda rows: lines(*rows)),
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
    with pytest.raises(ValueError, match="needs the package no_such_package; `make setup`"):
        PackagedText("news", package="no_such_package", file="x.jsonl").documents()
    with pytest.raises(ValueError, match="holds no file x.jsonl"):
        PackagedText("news", package="pipeline", file="x.jsonl").identity()


# --- the hub -------------------------------------------------------------------------------------------------------

OFFLINE = ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
WIKITEXT = HubText("wikitext2", dataset="Salesforce/wikitext", subset="wikitext-2-raw-v1", revision="abc")


@pytest.fixture
def online(monkeypatch):
    for variable in (*OFFLINE, "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(hub, "hub_answers", lambda: True)


@pytest.fixture
def streamed(monkeypatch, online, tmp_path):
    """A hub that streams ``rows`` through the real library, from a file; what was asked for is noted."""
    import datasets

    asked: list[tuple[str, dict[str, object]]] = []
    real = datasets.load_dataset
    path = tmp_path / "rows.jsonl"

    def fake(dataset: str, **options: object):
        asked.append((dataset, options))
        return real(
            "json", data_files=str(path), split=options["split"], streaming=True, cache_dir=str(tmp_path / "cache")
        )

    monkeypatch.setattr(datasets, "load_dataset", fake)
    return path, asked


def test_a_hub_dataset_is_streamed_shuffled_and_without_its_blank_rows(streamed, tokenizer):
    path, asked = streamed
    texts = [f"line {number}" for number in range(300)]
    path.write_bytes(lines(*({"text": text} for line in texts for text in (line, " "))))
    source = replace(WIKITEXT, sequences=300, packing=False)
    found = [tokenizer.decode(tokens) for tokens in source.tokenize(tokenizer)]
    assert sorted(found) == sorted(texts)
    assert found != texts
    assert same(source.tokenize(tokenizer), source.tokenize(tokenizer))
    assert asked[0] == (
        "Salesforce/wikitext",
        {"name": "wikitext-2-raw-v1", "data_files": None, "split": "train", "revision": "abc", "streaming": True},
    )
    replace(source, data_file="en/a.json.gz", sequences=1).tokenize(tokenizer)
    assert asked[-1][1]["data_files"] == {"train": "en/a.json.gz"}


def test_rows_of_a_hub_dataset_that_hold_no_text_are_refused(streamed):
    path, _ = streamed
    path.write_bytes(lines({"texts": "x"}))
    with pytest.raises(ValueError, match="dataset Salesforce/wikitext has no field text; did you mean texts"):
        list(WIKITEXT.documents())


def test_a_stream_that_breaks_off_is_refused_in_plain_words(streamed):
    path, _ = streamed
    path.write_bytes(lines({"text": "x"}) + b"\n{")
    with pytest.raises(ValueError, match="Salesforce/wikitext .*that failed .*offline choices are calibration=news"):
        list(WIKITEXT.documents())


def test_a_dataset_that_cannot_be_opened_is_refused_in_plain_words(monkeypatch, online):
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such subset\nand more")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=r"that failed \(RuntimeError: no such subset\); offline choices"):
        list(WIKITEXT.documents())


@pytest.mark.parametrize("variable", OFFLINE[:2])
def test_offline_by_environment_is_refused_at_once(monkeypatch, tokenizer, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ValueError, match=r"allenai/c4 .*OFFLINE is set; .*calibration=file calibration.path=FILE"):
        HubText("c4", dataset="allenai/c4").tokenize(tokenizer)


def refused_within(seconds: float) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match="cannot be reached; offline choices are calibration=news"):
        list(WIKITEXT.documents())
    assert time.monotonic() - start < seconds


@pytest.fixture
def endpoint(monkeypatch):
    """Sets the hub's address, with the network as it is."""
    for variable in (*OFFLINE, "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return lambda address: monkeypatch.setenv("HF_ENDPOINT", address)


def test_a_hub_that_cannot_be_reached_is_refused_within_seconds(endpoint):
    for address in ("http://127.0.0.1:9", "https://hub.invalid", "nonsense"):
        endpoint(address)
        refused_within(7)


def test_a_hub_that_never_answers_is_refused_within_seconds(endpoint, monkeypatch):
    monkeypatch.setattr(hub, "_PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}")
        refused_within(3)


@pytest.mark.parametrize(("status", "there"), [(200, True), (404, True), (503, False)])
def test_a_hub_that_answers_is_there_unless_it_says_otherwise(endpoint, status, there):
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        endpoint(f"http://127.0.0.1:{server.server_port}")
        assert hub.hub_answers() == there


def test_hub_sources_import_no_dataset_library_and_have_an_identity_without_it():
    script = (
        "import sys\nfrom pipeline.calibration.hub import HubText\nfrom pipeline.calibration.file import FileText\n"
        "HubText('c4', dataset='allenai/c4').identity()\nprint('datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
