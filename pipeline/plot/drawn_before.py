"""Figures as they were drawn last: while nothing that they depend on has changed, nothing is read or drawn for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.common.files import write_json
from pipeline.common.sources import sources_digest
from pipeline.config.schema import FiguresConfig
from pipeline.config.search_path import folders
from pipeline.store.integrity import digest, file_digest, read_sealed, sealed
from pipeline.tables.choice import Choice, read_jobs
from pipeline.tables.read import NAMES
from pipeline.tables.stored import SUFFIX

_PACKAGES = ("matplotlib", "numpy", "pandas", "pillow", "scipy", "seaborn")
_MEMORY = ".drawn.json"


@dataclass(frozen=True)
class FigureResult:
    """Outcome of one figure.

    Attributes:
        name: `figNN_name`.
        paths: its PNG and CSV, for a paper also its PDF, caption and LaTeX; empty if its data are missing.
        caption: its caption; empty if its data are missing.
        missing: why it was not drawn and how to make its data; None if its files are there.
        drawn: whether this call drew it; False if the files were up to date.
        title: its title; empty if its data are missing.
        failed: whether it is one of the user's own whose file raised an error, which `missing` tells.
    """

    name: str
    paths: tuple[Path, ...] = ()
    caption: str = ""
    missing: str | None = None
    drawn: bool = False
    title: str = ""
    failed: bool = False


def state_of(outputs: Path, choice: Choice, form: FiguresConfig) -> str:
    """Return a digest of all that figures and the page depend on: tables, form, code and libraries.

    Of the times when jobs have ended, only their order counts.
    """
    tables = {name: outputs / "tables" / f"{name}{SUFFIX}" for name in NAMES}
    return digest(
        {
            "choice": asdict(choice),
            "form": asdict(form),
            "jobs": read_jobs(outputs).drop(columns="finished").to_json(orient="values"),
            "tables": {name: file_digest(path) for name, path in tables.items() if path.is_file()},
            "own figures": {path.name: file_digest(path) for path in _beside_own_figures(form.include)},
            "sources": sources_digest(*folders()),
            "packages": {name: metadata.version(name) for name in _PACKAGES},
        }
    )


def _beside_own_figures(folder: str | None) -> list[Path]:
    """Return all Python files in a folder of the user's own: its figures may import the others."""
    return sorted(Path(folder).expanduser().glob("*.py")) if folder else []


def recalled(folder: Path, state: str) -> list[FigureResult] | None:
    """Return the figures that `remember` was given in this state; None for another one, or if a file has changed."""
    try:
        known = read_sealed(folder / _MEMORY)
        if known["state"] != state or known["files"] != _digests(folder, known["files"]):
            return None
        return [FigureResult(**_with_paths(folder, figure)) for figure in known["figures"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(folder: Path, state: str, results: Sequence[FigureResult]) -> None:
    """Keep how figures in a folder were drawn in this state, unless one has failed: that is tried again."""
    if any(result.failed for result in results):
        (folder / _MEMORY).unlink(missing_ok=True)
        return
    names = [str(path.relative_to(folder)) for result in results for path in result.paths]
    figures = [
        {**asdict(result), "drawn": False, "paths": [str(path.relative_to(folder)) for path in result.paths]}
        for result in results
    ]
    write_json(folder / _MEMORY, sealed({"state": state, "files": _digests(folder, names), "figures": figures}))


def _digests(folder: Path, names: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return the digests of files below a folder, by name. Raises OSError if one cannot be read."""
    return {name: file_digest(folder / name) for name in names}


def _with_paths(folder: Path, figure: Mapping[str, Any]) -> dict[str, Any]:
    return {**figure, "paths": tuple(folder / name for name in figure["paths"])}
