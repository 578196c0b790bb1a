"""The table of findings, docs/findings.json: numbers, the command that gives them, and the code that gave them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.common.files import replacing

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "docs" / "findings.json"


@dataclass(frozen=True)
class Grid:
    """Texts of a table by rows."""

    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table in Markdown, without a line break at its end."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


Value = str | Grid


@dataclass(frozen=True)
class Finding:
    """Numbers that one command gives.

    Attributes:
        command: the command line, as a reader gives it.
        commit: the code that measured them.
        date: of the measurement.
        stages: versions of the artifacts that they depend on, by the name of their stage class, at that commit.
        values: texts and tables by name, as the pages show them.
    """

    command: str
    commit: str
    date: str
    stages: Mapping[str, int]
    values: Mapping[str, Value]

    def changed(self, versions: Mapping[str, int]) -> dict[str, tuple[int, int | None]]:
        """Return the stages whose version is another in the code: their versions here and there, None for no stage."""
        return {
            name: (version, versions.get(name))
            for name, version in self.stages.items()
            if versions.get(name) != version
        }


def read_findings(path: Path = TABLE) -> dict[str, Finding]:
    """Return the findings by id."""
    return {name: _finding(facts) for name, facts in json.loads(path.read_text(encoding="utf-8")).items()}


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence lists them: "1, 2 and 3"; empty without any."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def write_findings(findings: Mapping[str, Finding], path: Path = TABLE) -> None:
    """Write the findings in the order of their ids."""
    text = json.dumps({name: asdict(findings[name]) for name in sorted(findings)}, indent=1, ensure_ascii=False)
    with replacing(path) as scratch:
        scratch.write_text(f"{text}\n", encoding="utf-8")


def _finding(facts: Mapping[str, Any]) -> Finding:
    values = {name: value if isinstance(value, str) else Grid(**value) for name, value in facts["values"].items()}
    return Finding(**{**facts, "values": values})
