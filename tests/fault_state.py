"""What an outputs folder holds, in a form in which two of them can be compared; and what must not be left in one."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pandas as pd

from pipeline.store.integrity import MANIFEST, damage, read_sealed
from pipeline.store.records import load_records

# What is different each time: when a job ended, where, and what it took.
_OF_THE_RUN = ("finished", "started", "seconds", "cost", "spent", "origin", "origins", "wandb")
_PRIVATE = re.compile(r".+\.[^.]+\.\d+\.\w{6}")


def content(outputs: Path) -> dict[str, object]:
    """Every result by its name: artifacts by the checksums of their files, records, tables, figures, the report."""
    found: dict[str, object] = {}
    for manifest in outputs.glob(f"store/[!.]*/*/{MANIFEST}"):
        problem = damage(manifest.parent)
        found[str(manifest.parent.relative_to(outputs))] = problem or read_sealed(manifest)["files"]
    for record in load_records(outputs / "jobs"):
        facts = {name: value for name, value in vars(record).items() if name not in _OF_THE_RUN}
        facts["config"] = {key: value for key, value in record.config.items() if key != "outputs"}
        found[f"jobs/{record.job}"] = facts
    for path in (outputs / "tables").glob("*.parquet"):
        table = pd.read_parquet(path).drop(columns=["finished", "started"], errors="ignore")
        # Jobs stand in the order in which they have ended.
        found[f"tables/{path.name}"] = sorted(table.to_csv(index=False, float_format="%.17g").splitlines())
    for path in (outputs / "figures").glob("[!.]*"):
        found[f"figures/{path.name}"] = path.read_bytes()
    found["report"] = (outputs / "report" / "index.html").read_bytes()
    return found


def differences(expected: dict[str, object], outputs: Path) -> tuple[list[str], list[str]]:
    """Names of results that are not there, and of those that are different or should not be there."""
    there = content(outputs)
    lost = sorted(expected.keys() - there.keys())
    wrong = [name for name in sorted(there) if expected.get(name) != there[name]]
    return lost, wrong


def finished(outputs: Path) -> dict[str, object]:
    """When each artifact was made: one that is there is not made again."""
    return {str(path): read_sealed(path)["finished"] for path in outputs.glob(f"store/[!.]*/*/{MANIFEST}")}


def halves(outputs: Path) -> list[str]:
    """Artifacts that are in their place without being whole."""
    return [str(path) for path in outputs.glob("store/[!.]*/*") if damage(path) is not None]


def litter(outputs: Path) -> list[str]:
    """Private files, locks and parts of builds, which nobody has any use for once all commands have ended."""
    places = ("store/.scratch/*", "store/.locks/*", "store/.unfinished/*")
    found = [path for place in places for path in outputs.glob(place)]
    return [str(path) for path in [*found, *(path for path in outputs.rglob("*") if _PRIVATE.fullmatch(path.name))]]


def work(outputs: Path) -> Counter[str]:
    """How often each artifact was computed, by what the jobs of all commands say of themselves."""
    return Counter(name for record in load_records(outputs / "runs", "*/*/outcome.json") for name in record.cost)
