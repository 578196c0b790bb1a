"""Data sets in BEIR format: a folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

The corpus is always streamed: memory does not grow with its texts. Light to import.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.common.json_lines import rows_of_lines
from pipeline.common.regular_files import check_regular

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
LAYOUT = f"a BEIR directory contains {CORPUS}, {QUERIES} and {QRELS}/<split>.tsv"
_DEFAULT_SPLIT = "test"
_HEADER = ("query-id", "corpus-id", "score")


@dataclass(frozen=True)
class Document:
    """One document: its id, and its title and text as one string."""

    id: str
    text: str


@dataclass(frozen=True)
class Files:
    """Paths of the parts of a data set."""

    corpus: Path
    queries: Path
    qrels: Path


@dataclass(frozen=True)
class Dataset:
    """Queries, their relevance judgements, and a corpus that is read from its file each time.

    Attributes:
        name: name that tables show.
        files: paths of the data.
        queries: text by query id, judged and not blank, in the order of the file.
        qrels: grade by query id and document id, for the same queries.
        size: number of documents.
        left_out: number of judged queries without text.
        required: documents that a smaller corpus must hold; None if the corpus is whole.
    """

    name: str
    files: Files
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    size: int
    left_out: int = 0
    required: frozenset[str] | None = None

    def documents(self) -> Iterator[Document]:
        """Yield the documents in the order of the file."""
        spare = 0 if self.required is None else self.size - len(self.required)
        for document in _documents(self.files.corpus):
            if self.required is None or document.id in self.required:
                yield document
            elif spare:
                spare -= 1
                yield document

    def digest(self) -> str:
        """Return 8 hexadecimal digits of the queries, their judgements, and every document."""
        content = hashlib.sha256(json.dumps([self.queries, self.qrels], sort_keys=True).encode())
        for document in self.documents():
            content.update(json.dumps([document.id, document.text]).encode())
        return content.hexdigest()[:8]

    def smaller(self, queries: float | None, documents: int | None) -> Dataset:
        """Return a data set of the first ``queries`` queries, a fraction of them below 1, and ``documents`` documents.

        None keeps all.

        The corpus holds all documents relevant to these queries, even if they are more, and then the first others.
        """
        if queries is not None:
            queries = math.ceil(len(self.queries) * queries) if queries < 1 else int(queries)
        asked = dict(islice(self.queries.items(), queries))
        qrels = {query: self.qrels[query] for query in asked}
        small = replace(self, queries=asked, qrels=qrels)
        if documents is None or documents >= self.size:
            return small
        required = frozenset(document for grades in qrels.values() for document, grade in grades.items() if grade > 0)
        return replace(small, size=max(documents, len(required)), required=required)


def find_files(folder: Path, split: str | None = None) -> Files:
    """Find the files of a data set: of ``split``, or of ``test`` if there is one, else of the only split.

    Raises ValueError if the folder or one of its files is missing, or if the split must be chosen.
    """
    with _naming(folder):
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a directory; {_near(folder)}{LAYOUT}")
        for path in (folder / CORPUS, folder / QUERIES):
            if not path.exists():
                raise ValueError(f"{path} is missing; {_near(path)}{LAYOUT}")
        splits = sorted(path.stem for path in (folder / QRELS).glob("*.tsv"))
    if not splits:
        raise ValueError(f"{folder / QRELS} has no .tsv file; {LAYOUT}")
    if split is None:
        if _DEFAULT_SPLIT not in splits and len(splits) > 1:
            raise ValueError(f"{folder} has several splits and none named test; give one of {', '.join(splits)}")
        split = _DEFAULT_SPLIT if _DEFAULT_SPLIT in splits else splits[0]
    elif split not in splits:
        near = difflib.get_close_matches(split, splits, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{folder} has no split {split}; {hint}there are {', '.join(splits)}")
    files = Files(folder / CORPUS, folder / QUERIES, folder / QRELS / f"{split}.tsv")
    for path in (files.corpus, files.queries, files.qrels):
        with _naming(path):
            check_regular(path)
    return files


def read_beir(folder: Path, split: str | None = None, name: str | None = None) -> Dataset:
    """Read and check a data set, in one pass through the corpus.

    Raises ValueError, naming the file and the line where there is one, for missing files, lines that cannot be read,
    ids that occur twice, and judgements of queries or documents that do not exist.
    """
    files = find_files(folder, split)
    qrels = _qrels(files.qrels)
    queries = _queries(files.queries)
    if unknown := [query for query in qrels if query not in queries]:
        raise ValueError(_unknown("queries", files.qrels, files.queries, unknown))
    size = _check_corpus(files, {document for grades in qrels.values() for document in grades})
    asked = {query: text for query, text in queries.items() if query in qrels and text.strip()}
    if not asked:
        raise ValueError(f"{files.qrels} judges no query that has text; give another split")
    return Dataset(
        name=name or os.path.basename(os.path.realpath(folder)),
        files=files,
        queries=asked,
        qrels={query: qrels[query] for query in asked},
        size=size,
        left_out=len(qrels) - len(asked),
    )


def _documents(path: Path) -> Iterator[Document]:
    for where, row in _rows(path):
        title, text = _text(row, "title", where, required=False), _text(row, "text", where)
        yield Document(_id(row, where), f"{title} {text}".strip())


def _queries(path: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    for where, row in _rows(path):
        query = _id(row, where)
        if query in queries:
            raise ValueError(f"{where}: query {query} appeared before; ids must be unique")
        queries[query] = _text(row, "text", where)
    return queries


def _check_corpus(files: Files, judged: set[str]) -> int:
    """Count the documents. Raises ValueError for ids that occur twice and judged ones that do not occur."""
    # Eight bytes per id: millions of ids as Python strings would take more memory than all the rest.
    marks = array("Q")
    missing = set(judged)
    for document in _documents(files.corpus):
        marks.append(_mark(document.id))
        missing.discard(document.id)
    if not marks:
        raise ValueError(f"{files.corpus} contains no documents; write one per line")
    _check_duplicates(files.corpus, marks)
    if missing:
        raise ValueError(_unknown("documents", files.qrels, files.corpus, sorted(missing)))
    return len(marks)


def _mark(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def _check_duplicates(path: Path, marks: array[int]) -> None:
    """Raise ValueError for the first id that occurs twice; equal marks of different ids are not an error."""
    import numpy as np

    found, counts = np.unique(np.frombuffer(marks, dtype=np.uint64), return_counts=True)
    suspects = {int(mark) for mark in found[counts > 1]}
    seen: set[str] = set()
    for where, row in _rows(path) if suspects else ():
        document = _id(row, where)
        if document in seen:
            raise ValueError(f"{where}: document {document} appeared before; ids must be unique")
        if _mark(document) in suspects:
            seen.add(document)


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read the grades by query and document; equal judgements may be repeated."""
    qrels: dict[str, dict[str, int]] = {}
    with _naming(path), path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            cells = line.rstrip("\r\n").split("\t")
            if not line.strip():
                continue
            where = f"{path} line {number}"
            if len(cells) != len(_HEADER):
                raise ValueError(f"{where} has {len(cells)} columns; it needs {', '.join(_HEADER)}, separated by tabs")
            query, document, score = cells
            try:
                grade = int(score)
            except ValueError as error:
                if number == 1:  # the header
                    continue
                raise ValueError(f"{where}: the score {score} is not a whole number") from error
            if qrels.setdefault(query, {}).setdefault(document, grade) != grade:
                raise ValueError(f"{where} judges document {document} for query {query} again, differently; keep one")
    if not qrels:
        raise ValueError(f"{path} contains no judgements; it needs lines of {', '.join(_HEADER)}, separated by tabs")
    return qrels


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with _naming(path), path.open("rb") as lines:
        yield from rows_of_lines(lines, path, '{"_id": "1", "text": "..."}')


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors of the system or the decoder become ValueErrors that name the file, within the block."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); {LAYOUT}") from error


def _id(row: dict[str, Any], where: str) -> str:
    found = row.get("_id")
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise ValueError(f'{where} has no "_id"; every line needs one')
    try:
        str(found).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'{where}: "_id" is not valid Unicode ({error.reason}); fix that line') from error
    return str(found)


def _text(row: dict[str, Any], key: str, where: str, required: bool = True) -> str:
    if required and key not in row:
        raise ValueError(f'{where} has no "{key}"; every line needs one')
    text = row.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ValueError(f'{where}: "{key}" is {type(text).__name__}; it must be text')
    # JSON can contain a lone surrogate, which no tokenizer accepts.
    return text.encode(errors="replace").decode()


def _unknown(what: str, qrels: Path, source: Path, ids: list[str]) -> str:
    more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    return f"{qrels} judges {what} that {source} does not contain: {ids[0]}{more}; remove them there or add them here"


def _near(path: Path) -> str:
    siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {path.parent / close[0]}? " if close else ""
