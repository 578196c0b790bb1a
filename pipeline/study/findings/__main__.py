"""``python -m pipeline.study.findings``: measures findings, and writes them into the table and the pages."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline.common.arguments import Arguments
from pipeline.common.quiet import quiet_libraries
from pipeline.config.choices import nearest
from pipeline.study.findings import (
    beams,
    compared,
    demo,
    demoted,
    equal_tokens,
    faults,
    formulas,
    installed,
    kept,
    lazy,
    speed,
)
from pipeline.study.findings.pages import write_pages
from pipeline.study.findings.source import NoResults
from pipeline.study.findings.table import ROOT, Finding, read_findings, write_findings
from pipeline.study.findings.versions import versions_of_code

_MODULES = (beams, compared, demo, demoted, equal_tokens, faults, formulas, installed, kept, lazy, speed)
SOURCES = {name: source for module in _MODULES for name, source in module.SOURCES.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 2 for an unknown finding, 1 if one that was asked for has no results, else 0."""
    quiet_libraries()
    parser = Arguments(prog="python -m pipeline.study.findings", description=f"{__doc__}")
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help=f"from {', '.join(SOURCES)}; all but those of bench and faults without"
    )
    parser.add_argument("--pages", action="store_true", help="measure nothing: render the pages from the table again")
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.ids if name not in SOURCES]:
        print(f"{unknown[0]} is not measured here; {nearest(unknown[0], SOURCES)}", file=sys.stderr)
        return 2
    findings, failed = read_findings(), False
    wanted = chosen.ids or [name for name, source in SOURCES.items() if not (source.slow or chosen.pages)]
    for name in wanted:
        try:
            found = SOURCES[name].read(chosen.outputs)
        except NoResults as error:
            print(f"{name}: left as it was; {error}", file=sys.stderr)
            failed = failed or name in chosen.ids
            continue
        findings[name] = Finding(SOURCES[name].command, found.commit, found.date, found.stages, found.values)
        print(f"{name}: measured at {found.commit}, {found.date}")
    write_findings(findings)
    versions = versions_of_code()
    for path in write_pages(findings, versions):
        print(f"written: {path.relative_to(ROOT)}")
    for name, finding in findings.items():
        if changed := finding.changed(versions):
            print(f"{name}: older than the code, whose {', '.join(sorted(changed))} changed since {finding.commit}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
