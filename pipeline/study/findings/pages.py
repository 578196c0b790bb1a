"""The marked blocks of the README and of docs/, rendered from the table of findings.

A block is ``<!-- finding: ID.NAME -->…<!-- /finding -->``, which shows a value, ``<!-- finding: ID -->…``, which says
where the values of a finding come from, or ``<!-- findings -->…<!-- /findings -->``, which lists all with their age. A
value that is older than the code has a dagger, which leads to the explanation on the page of findings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.common.files import replacing
from pipeline.study.findings.table import ROOT, Finding, Grid

# The heading on the page of findings that explains the dagger.
EXPLANATION = "docs/findings.md#numbers-older-than-the-code"
_CHANGES = " with changes"
_BLOCK = re.compile(r"<!-- finding: ([\w.]+) -->.*?<!-- /finding -->", re.DOTALL)
_LIST = re.compile(r"<!-- findings -->.*?<!-- /findings -->", re.DOTALL)
# A heading, or the block that says where a finding comes from.
_PLACE = re.compile(r"^#+ (.+)$|<!-- finding: (\w+) -->", re.MULTILINE)
DAGGER = "†"


class UnknownFinding(ValueError):
    """Raised for a block whose finding or value is not in the table."""


def pages(root: Path = ROOT) -> Iterator[Path]:
    """Yield the pages that may have blocks."""
    yield root / "README.md"
    yield from sorted((root / "docs").rglob("*.md"))


def explanation_from(path: Path, root: Path = ROOT) -> str:
    """Return the link from a page to the explanation of the dagger."""
    target, _, heading = EXPLANATION.partition("#")
    name = Path(os.path.relpath(root / target, path.parent)).as_posix()
    return f"#{heading}" if path == root / target else f"{name}#{heading}"


def render(text: str, findings: Mapping[str, Finding], versions: Mapping[str, int], explanation: str) -> str:
    """Return the text of a page with all its blocks rendered; ``explanation`` is where the dagger leads.

    Raises:
        UnknownFinding: if the table has no such value.
    """

    def block(found: re.Match[str]) -> str:
        name, _, value = found[1].partition(".")
        if name not in findings or (value and value not in findings[name].values):
            raise UnknownFinding(f"docs/findings.json has no {found[1]}; correct the block, or measure it")
        finding = findings[name]
        shown = finding.values[value] if value else origin(finding, versions)
        old = bool(value and finding.changed(versions))
        # A table and a note are paragraphs; a number stands within one.
        if isinstance(shown, Grid):
            inside = f"\n\n{shown.markdown()}\n\n" + (
                f"{DAGGER} [Older than the code]({explanation})\n\n" if old else ""
            )
        elif value:
            inside = f"{shown}[{DAGGER}]({explanation})" if old else shown
        else:
            inside = f"\n\n{shown}\n\n"
        return f"<!-- finding: {found[1]} -->{inside}<!-- /finding -->"

    listed = f"<!-- findings -->\n\n{ages(findings, versions, _sections(text)).markdown()}\n\n<!-- /findings -->"
    return _LIST.sub(lambda _: listed, _BLOCK.sub(block, text))


def ages(findings: Mapping[str, Finding], versions: Mapping[str, int], sections: Mapping[str, str]) -> Grid:
    """Return the table of all findings, those older than the code first: their commits, and what has changed since.

    ``sections`` are the anchors of the headings above them, by id.
    """
    rows = []
    for name, finding in sorted(findings.items(), key=lambda item: (not item[1].changed(versions), item[0])):
        commit = f"`{finding.commit.removesuffix(_CHANGES)}`"
        commit += _CHANGES if finding.commit.endswith(_CHANGES) else ""
        changed = _changed(finding, versions)
        shown = f"[{name}](#{sections[name]})" if name in sections else name
        rows.append([f"{shown} {DAGGER}" if changed else shown, f"{commit}, {finding.date}", changed])
    return Grid(["finding", "commit", "changed since"], rows)


def _sections(text: str) -> dict[str, str]:
    """Return the anchor of the heading above each finding's note, as the pages are built with it."""
    found, anchor = {}, ""
    for heading, name in _PLACE.findall(text):
        if heading:
            anchor = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
        else:
            found[name] = anchor
    return found


def _changed(finding: Finding, versions: Mapping[str, int]) -> str:
    """Return the artifacts whose version has changed since; an empty text if none has."""
    changed = sorted(finding.changed(versions).items())
    return ", ".join(f"`{name}` {old} → {'gone' if new is None else new}" for name, (old, new) in changed)


def origin(finding: Finding, versions: Mapping[str, int]) -> str:
    """Return a note in Markdown: the command, the commit and date, and which artifacts have changed since."""
    commit, date = finding.commit.removesuffix(_CHANGES), finding.date
    if finding.commit.endswith(_CHANGES):
        when = f"Measured on {date} at commit `{commit}` with changes that were not committed; measure it again."
    else:
        when = f"Measured at commit `{commit}` ({date})."
    lines = [f"> Command: `{finding.command}`", f"> {when}"]
    if changed := _changed(finding, versions):
        lines.append(f"> **Older than the code**: versions of artifacts since then: {changed}.")
    return "  \n".join(lines)


def write_pages(findings: Mapping[str, Finding], versions: Mapping[str, int], root: Path = ROOT) -> list[Path]:
    """Render the blocks of all pages again; return the pages that changed."""
    changed = []
    for path in pages(root):
        text = path.read_text(encoding="utf-8")
        if (rendered := render(text, findings, versions, explanation_from(path, root))) != text:
            with replacing(path) as scratch:
                scratch.write_text(rendered, encoding="utf-8")
            changed.append(path)
    return changed
