"""Retrieval as a choice of the ``task`` group: the model's own embeddings on built-in sets and BEIR directories."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pipeline.config.types import Positive
from pipeline.evaluate.retrieval.beir import Dataset, find_files, read_beir
from pipeline.evaluate.retrieval.boolq import boolq_source, write_boolq
from pipeline.evaluate.retrieval.recipe import SHORTEST, pooling_problem
from pipeline.evaluate.suite import RETRIEVAL, TaskEntry, TaskSuite
from pipeline.store.integrity import known_digest


@dataclass(frozen=True)
class BuiltIn:
    """A set made from an installed package: ``source`` returns its file, ``write`` makes a BEIR directory from it.

    Increase ``version`` when the written files change.
    """

    source: Callable[[], Path]
    write: Callable[[Path], None]
    version: int = 1


BUILT_IN = {"boolq": BuiltIn(boolq_source, write_boolq)}


@dataclass(frozen=True)
class RetrievalSuite(TaskSuite):
    """nDCG@10, Recall@100 and MAP on ``sets``: names of built-in ones, or directories in BEIR format.

    ``split`` chooses among the judgements of directories. Of each set, the first ``limit`` queries are asked, against
    ``documents`` documents: all that are relevant to these queries, then the first others. Embeddings follow the
    model's own recipe, except for ``pooling``, the prefixes and ``max_length`` (tokens) where these are given.
    """

    sets: list[str] = field(default_factory=lambda: list(BUILT_IN))
    split: str | None = None
    documents: Positive | None = None
    pooling: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    max_length: Positive | None = None

    writes_text: ClassVar[bool] = False
    chooses: ClassVar[tuple[str, ...]] = ("sets",)

    def entries(self) -> Sequence[TaskEntry]:
        return [TaskEntry(name, name, RETRIEVAL, "ndcg@10") for name in map(_name, self.sets)]

    def definitions(self) -> list[str | dict[str, Any]]:
        return []

    def needs_definitions(self) -> bool:
        return False

    def identity(self) -> dict[str, Any]:
        content = {
            _name(given): {f"{number}-{path.name}": known_digest(path) for number, path in enumerate(self._data(given))}
            for given in self.sets
        }
        made = {given: BUILT_IN[given].version for given in self.sets if given in BUILT_IN}
        return super().identity() | {"content": content, "made": made}

    def problems(self) -> list[str]:
        if not self.sets:
            return [f"task.sets is empty; give BEIR directories, or choose from {', '.join(BUILT_IN)}"]
        if odd := [given for given in self.sets if not isinstance(given, str) or not given.strip() or "\0" in given]:
            return [f"task.sets: {odd[0]!r} is neither a name nor a directory; choose from {', '.join(BUILT_IN)}"]
        found = [problem for given in self.sets if (problem := self._set_problem(given))]
        for name, times in Counter(map(_name, self.sets)).items():
            if times > 1:
                found.append(
                    f"task.sets has {times} sets named {name}; give each once, in folders with different names"
                )
        if self.pooling is not None and (problem := pooling_problem("task.pooling", self.pooling)):
            found.append(problem)
        if self.max_length is not None and self.max_length < SHORTEST:
            found.append(f"task.max_length={self.max_length} should be at least {SHORTEST} tokens")
        for key, value, plain in (
            ("shots", self.shots, None),
            ("chat_template", self.chat_template, False),
            ("allow_code_execution", self.allow_code_execution, False),
        ):
            if value != plain:
                left = "null" if plain is None else "false"
                found.append(f"task.{key}={value} has no effect on retrieval; leave it at {left}")
        return found

    def prepare(self) -> None:
        """Check at once that every set can be read. Raises ValueError in plain words."""
        for given in self.sets:
            if given in BUILT_IN:
                BUILT_IN[given].source()
            else:
                read_beir(_folder(given), self.split)

    def datasets(self) -> Iterator[Dataset]:
        """Yield the sets one after the other; the files of a built-in set exist until the next set is requested."""
        for given in self.sets:
            with tempfile.TemporaryDirectory(prefix="retrieval-") as scratch:
                if given in BUILT_IN:
                    BUILT_IN[given].write(Path(scratch))
                    dataset = read_beir(Path(scratch), name=given)
                else:
                    dataset = read_beir(_folder(given), self.split, _name(given))
                yield dataset.smaller(self.limit, self.documents)

    def _data(self, given: str) -> list[Path]:
        """Return the files that the results on a set depend on."""
        if given in BUILT_IN:
            return [BUILT_IN[given].source()]
        files = find_files(_folder(given), self.split)
        return [files.corpus, files.queries, files.qrels]

    def _set_problem(self, given: str) -> str | None:
        try:
            self._data(given)
        except ValueError as error:
            near = difflib.get_close_matches(given, BUILT_IN, n=1)
            hint = f"; did you mean {near[0]}?" if near and not os.path.exists(_folder(given)) else ""
            return f"task.sets: {error}; built-in sets are {', '.join(BUILT_IN)}{hint}"
        return None


def _folder(given: str) -> Path:
    return Path(os.path.expanduser(given))


def _name(given: str) -> str:
    return given if given in BUILT_IN else os.path.basename(os.path.realpath(_folder(given)))
