"""The marked blocks of the README and of docs/, rendered from the table of findings.

A block is ``<!-- finding: ID.NAME -->…<!-- /finding -->``, which shows a value, or ``<!-- finding: ID -->…``, which
says where the values of a finding come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.common.files import replacing
from pipeline.study.findings.table import ROOT, Finding, Grid

_BLOCK = re.compile(r"<!-- finding: ([\w.]+) -->.*?<!-- /finding -->", re.DOTALL)


class UnknownFinding(ValueError):
    """Raised for a block whose finding or value is not in the table."""


def pages(root: Path = ROOT) -> Iterator[Path]:
    """Yield the pages that may have blocks."""
    yield root / "README.md"
    yield from sorted((root / "docs").rglob("*.md"))


def render(text: str, findings: Mapping[str, Finding], versions: Mapping[str, int]) -> str:
    """Return the text of a page with all its blocks rendered.

    Raises:
        UnknownFinding: if the table has no such value.
    """

    def block(found: re.Match[str]) -> str:
        name, _, value = found[1].partition(".")
        if name not in findings or (value and value not in findings[name].values):
            raise UnknownFinding(f"docs/findings.json has no {found[1]}; correct the block, or measure it")
        shown = findings[name].values[value] if value else origin(findings[name], versions)
        # A table and a note are paragraphs; a number stands within one.
        inside = f"\n\n{shown.markdown()}\n\n" if isinstance(shown, Grid) else shown if value else f"\n\n{shown}\n\n"
        return f"<!-- finding: {found[1]} -->{inside}<!-- /finding -->"

    return _BLOCK.sub(block, text)


def origin(finding: Finding, versions: Mapping[str, int]) -> str:
    """Return a note in Markdown: the command, the commit and date, and which stages have changed since."""
    how = "Measured at" if finding.measured else "From the README, where these numbers last changed at"
    lines = [f"> Command: `{finding.command}`", f"> {how} commit `{finding.commit}` ({finding.date})."]
    if changed := finding.changed(versions):
        told = [f"`{name}` {old} → {'gone' if new is None else new}" for name, (old, new) in sorted(changed.items())]
        lines.append(f"> **Older than the code**: versions of stages since then: {', '.join(told)}.")
    return "  \n".join(lines)


def write_pages(findings: Mapping[str, Finding], versions: Mapping[str, int], root: Path = ROOT) -> list[Path]:
    """Render the blocks of all pages again; return the pages that changed."""
    changed = []
    for path in pages(root):
        text = path.read_text(encoding="utf-8")
        if (rendered := render(text, findings, versions)) != text:
            with replacing(path) as scratch:
                scratch.write_text(rendered, encoding="utf-8")
            changed.append(path)
    return changed
