"""Findings about the data of the installed packages, which take seconds to count."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.common.packages import package_file
from pipeline.config.choices import read_choice
from pipeline.evaluate.retrieval.boolq import boolq_source
from pipeline.evaluate.suites.offline.rows import checked, lines_of
from pipeline.evaluate.suites.offline.sources import SOURCES as BENCHMARKS
from pipeline.study.findings.source import Measured, Source, measured_now
from pipeline.study.findings.table import Grid


def left_out(_: Path) -> Measured:
    """Count the rows of each benchmark that cannot be asked."""
    lines = []
    for name in BENCHMARKS:
        rows = checked(name)
        if left := rows.left_out.total():
            lines.append([f"`{name}`", f"{left:,}", f"{len(rows.usable) + left:,}"])
    return measured_now({"rows": Grid(["task", "left out", "of"], lines)}, {})


def packages(_: Path) -> Measured:
    """Count rows of the packages, and passages that calibration and retrieval have in common."""
    stories = checked("narrativeqa").usable
    summaries = {row["passage"] for row in stories}
    asked = {(row["title"].strip(), row["passage"].strip()) for row in map(json.loads, lines_of(boolq_source()))}
    wiki = read_choice("calibration", "wiki")
    lines = lines_of(package_file(wiki["package"], wiki["file"], "calibration=wiki"))
    # In this file the title stands in front of the passage.
    texts = {json.loads(line)[wiki["field"]].split(" -- ", 1)[-1].strip() for line in lines}
    numbers = {
        "piqa": len(checked("piqa").usable),
        "summaries": len(summaries),
        "questions": round(len(stories) / len(summaries)),
        "passages": len(asked),
        "overlap": sum(passage in texts for _, passage in asked),
    }
    return measured_now({name: f"{number:,}" for name, number in numbers.items()}, {})


SOURCES = {
    name: Source(f"python -m pipeline.study.findings {name}", read)
    for name, read in {"left_out": left_out, "packages": packages}.items()
}
