"""Calibration text that is streamed from the hub, and what happens without one."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from helpers import json_lines, same_sequences

from pipeline.data import hub
from pipeline.data.calibration.hub import HubText

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
    path.write_bytes(json_lines(*({"text": text} for line in texts for text in (line, " "))))
    source = replace(WIKITEXT, sequences=300, packing=False)
    found = [tokenizer.decode(tokens) for tokens in source.tokenize(tokenizer)]
    assert sorted(found) == sorted(texts)
    assert found != texts
    assert same_sequences(source.tokenize(tokenizer), source.tokenize(tokenizer))
    assert asked[0] == (
        "Salesforce/wikitext",
        {"name": "wikitext-2-raw-v1", "data_files": None, "split": "train", "revision": "abc", "streaming": True},
    )
    replace(source, data_file="en/a.json.gz", sequences=1).tokenize(tokenizer)
    assert asked[-1][1]["data_files"] == {"train": "en/a.json.gz"}


def test_rows_of_a_hub_dataset_that_hold_no_text_are_refused(streamed):
    path, _ = streamed
    path.write_bytes(json_lines({"texts": "x"}))
    with pytest.raises(ValueError, match="dataset Salesforce/wikitext has no field text; did you mean texts"):
        list(WIKITEXT.documents())


def test_a_stream_that_breaks_off_is_refused_in_plain_words(streamed):
    path, _ = streamed
    path.write_bytes(json_lines({"text": "x"}) + b"\n{")
    with pytest.raises(
        ValueError, match="Salesforce/wikitext .*loading it failed .*these work offline: calibration=news"
    ):
        list(WIKITEXT.documents())


def test_a_dataset_that_cannot_be_opened_is_refused_in_plain_words(monkeypatch, online):
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such subset\nand more")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=r"loading it failed \(RuntimeError: no such subset\); these work offline"):
        list(WIKITEXT.documents())


@pytest.mark.parametrize("variable", OFFLINE[:2])
def test_offline_by_environment_is_refused_at_once(monkeypatch, tokenizer, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ValueError, match=r"allenai/c4 .*OFFLINE is set; .*calibration=file calibration.path=FILE"):
        HubText("c4", dataset="allenai/c4").tokenize(tokenizer)


def refused_within(seconds: float) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match="cannot be reached; these work offline: calibration=news"):
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
    monkeypatch.setattr(hub, "PATIENCE", 0.3)
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


@pytest.mark.rotated("data of the hub")
def test_hub_sources_import_no_dataset_library_and_have_an_identity_without_it():
    script = (
        "import sys\nfrom pipeline.data.calibration.file import FileText\n"
        "from pipeline.data.calibration.hub import HubText\n"
        "HubText('c4', dataset='allenai/c4').identity()\nprint('datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
