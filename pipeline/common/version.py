"""Version of this package, and of what it stands on, for people."""

from __future__ import annotations

import platform
import tomllib
from importlib import metadata
from pathlib import Path

NAME = "pruning-representations"
_STANDS_ON = ("torch", "transformers", "lm-eval", "hydra-core", "wandb")
_PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def version() -> str:
    """Return the version of this package: of the clone that it runs from, else of the installed distribution."""
    if _PROJECT.is_file():
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == NAME:
            return str(project["version"])
    return metadata.version(NAME)


def version_line() -> str:
    """Return one line with the version of this package, of Python and of the main libraries."""
    found = [f"{NAME} {version()}", f"Python {platform.python_version()}"]
    for package in _STANDS_ON:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)
