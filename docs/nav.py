"""Adds the pages of docs/extending to the navigation, so that a new page needs no entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SECTION, FOLDER = "Extend", "extending"


def on_config(config: Any) -> Any:
    """List the pages of the folder in its section, the overview first."""
    pages = sorted(path.name for path in Path(config["docs_dir"], FOLDER).glob("*.md"))
    pages.sort(key=lambda name: name != "index.md")
    for section in config["nav"]:
        if SECTION in section:
            section[SECTION] = [f"{FOLDER}/{name}" for name in pages]
    return config
