"""Data sets in BEIR format: what is read, what is refused and how, and smaller versions of a set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import json_lines

from pipeline.evaluate.retrieval.beir import find_files, read_beir
from pipeline.evaluate.retrieval.boolq import boolq_source, write_boolq

CORPUS = [{"_id": f"d{n}", "title": f"T{n}", "text": f"text {n}"} for n in range(6)]
QUERIES = [{"_id": f"q{n}", "text": f"question {n}"} for n in range(4)]
QRELS = "query-id\tcorpus-id\tscore\nq1\td4\t1\nq0\td5\t2\nq0\td0\t0\nq2\td1\t1\n"


def write(folder: Path, corpus=CORPUS, queries=QUERIES, **qrels: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_bytes(corpus if isinstance(corpus, bytes) else json_lines(*corpus))
    (folder / "queries.jsonl").write_bytes(queries if isinstance(queries, bytes) else json_lines(*queries))
    for split, text in (qrels or {"test": QRELS}).items():
        (folder / "qrels" / f"{split}.tsv").write_text(text)
    return folder


def test_reads_queries_judgements_and_documents(tmp_path):
    dataset = read_beir(write(tmp_path / "mine"))
    assert dataset.name == "mine" and dataset.size == 6 and dataset.left_out == 0
    # In the order of the file; q3 is judged nowhere.
    assert list(dataset.queries.items()) == [(f"q{n}", f"question {n}") for n in range(3)]
    assert dataset.qrels == {"q0": {"d5": 2, "d0": 0}, "q1": {"d4": 1}, "q2": {"d1": 1}}
    assert [(d.id, d.text) for d in dataset.documents()] == [(f"d{n}", f"T{n} text {n}") for n in range(6)]
    assert len(list(dataset.documents())) == 6, "documents can be read again"


def test_titles_are_optional_ids_may_be_numbers_and_blank_lines_are_skipped(tmp_path):
    rows = b'{"_id": 1, "text": " one "}\n\n{"_id": "2", "title": null, "text": null}\r\n'
    rows += b'{"_id": "3", "title": "x", "text": ""}'
    dataset = read_beir(write(tmp_path / "s", corpus=rows, test="q0\t1\t1\n"))
    assert [(d.id, d.text) for d in dataset.documents()] == [("1", "one"), ("2", ""), ("3", "x")]
    assert dataset.qrels == {"q0": {"1": 1}}, "a first line of data is no header"


def test_judged_queries_without_text_are_left_out_and_counted(tmp_path):
    dataset = read_beir(write(tmp_path / "s", queries=[{"_id": "q0", "text": " "}, *QUERIES[1:]]))
    assert list(dataset.queries) == list(dataset.qrels) == ["q1", "q2"]
    assert dataset.left_out == 1


def test_split_is_the_given_one_or_test_or_the_only_one(tmp_path):
    one, two = "q0\td0\t1\n", "q1\td1\t1\n"
    both = write(tmp_path / "both", dev=one, test=two)
    assert list(read_beir(both).queries) == ["q1"]
    assert list(read_beir(both, "dev").queries) == ["q0"]
    assert list(read_beir(write(tmp_path / "only", train=one)).queries) == ["q0"]
    with pytest.raises(ValueError, match="give one of dev, train"):
        read_beir(write(tmp_path / "many", train=one, dev=two))
    with pytest.raises(ValueError, match="no split tets; did you mean test"):
        read_beir(both, "tets")


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_missing_files_are_named(tmp_path, missing):
    folder = write(tmp_path / "s")
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=missing.split("/")[0]):
        find_files(folder)


def test_missing_folder_names_a_near_one(tmp_path):
    write(tmp_path / "scifact")
    with pytest.raises(ValueError, match=r"not a directory; did you mean .*scifact\?"):
        find_files(tmp_path / "scifcat")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("corpus", json_lines(CORPUS[0]) + b"{oops\n", "corpus.jsonl line 2 is not valid JSON"),
        ("corpus", b'"text"\n', "line 1 is not a JSON object"),
        ("corpus", b"\xff\xfe{}\n", "line 1 is not valid JSON"),
        ("corpus", b'{"_id": "\\ud800", "text": ""}\n', "not valid Unicode"),
        ("corpus", b"", "contains no documents"),
        ("corpus", [*CORPUS, {"_id": "d7"}], 'line 7 has no "text"'),
        ("corpus", [*CORPUS, {"text": "x"}], 'line 7 has no "_id"'),
        ("corpus", [*CORPUS, {"_id": "d7", "text": 3}], "line 7: .* must be text"),
        ("corpus", [*CORPUS, CORPUS[2]], "line 7: document d2 appeared before"),
        ("corpus", CORPUS[:4], "judges documents that .* does not contain: d4 and 1 more"),
        ("queries", [*QUERIES, QUERIES[0]], "line 5: query q0 appeared before"),
        ("queries", QUERIES[:2], "judges queries that .* does not contain: q2;"),
        ("queries", [{"_id": f"q{n}", "text": ""} for n in range(3)], "no query that has text"),
        ("test", "query-id\tcorpus-id\tscore\n", "contains no judgements"),
        ("test", "q0\td0\n", "line 1 has 2 columns"),
        ("test", "q0\t0\td0\t1\n", "line 1 has 4 columns"),
        ("test", "q0\td0\t1\nq0\td1\thigh\n", "line 2: the score high is not a whole number"),
        ("test", "q0\td0\t1\nq0\td0\t2\n", "line 2 judges document d0 for query q0 again"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, part, value, message):
    with pytest.raises(ValueError, match=message):
        read_beir(write(tmp_path / "s", **{part: value}))


def test_smaller_keeps_what_is_relevant_and_fills_up_from_the_start(tmp_path):
    dataset = read_beir(write(tmp_path / "s"))
    small = dataset.smaller(queries=2, documents=4)
    assert list(small.queries) == list(small.qrels) == ["q0", "q1"]
    # d5 and d4 are relevant; d0 is judged, but not relevant: it comes in as the first of the others.
    assert [d.id for d in small.documents()] == ["d0", "d1", "d4", "d5"] and small.size == 4
    fewest = dataset.smaller(queries=2, documents=1)
    assert [d.id for d in fewest.documents()] == ["d4", "d5"] and fewest.size == 2
    # A share of the queries is rounded up.
    assert list(dataset.smaller(0.1, None).queries) == ["q0"]
    assert len(dataset.smaller(0.5, None).queries) == -(-len(dataset.queries) // 2)
    for whole in (dataset.smaller(None, None), dataset.smaller(9, 9)):
        assert whole.queries == dataset.queries and [d.id for d in whole.documents()] == [d["_id"] for d in CORPUS]


def test_boolq_has_every_question_and_each_passage_once(tmp_path):
    write_boolq(tmp_path)
    dataset = read_beir(tmp_path, name="boolq")
    rows = [json.loads(line) for line in boolq_source().read_text(encoding="utf-8").splitlines()]
    documents = {d.id: d.text for d in dataset.documents()}
    assert len(set(documents.values())) == len(documents) == dataset.size >= 1000
    assert len(documents) < len(rows) == len(dataset.queries), "questions share passages"
    assert set(documents.values()) == {f"{row['title'].strip()} {row['passage'].strip()}" for row in rows}
    for row, (query, text) in zip(rows, dataset.queries.items(), strict=True):
        (document,) = dataset.qrels[query]
        assert text == row["question"].strip()
        assert documents[document].endswith(row["passage"].strip())


def test_boolq_is_the_same_every_time(tmp_path):
    write_boolq(tmp_path / "a")
    write_boolq(tmp_path / "b")
    for file in ("corpus.jsonl", "queries.jsonl", "qrels/dev.tsv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
