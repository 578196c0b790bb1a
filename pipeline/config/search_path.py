"""Where configuration is looked for: the project's ``conf/``, then folders of the user's own.

Hydra's ``--config-dir`` and ``hydra.searchpath`` name those folders. What reads the files of choices without Hydra
(checks, labels of jobs) looks into the same folders, in the same order.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

_PACKAGE = Path(__file__).resolve().parents[1]
# At the top of a clone, where people look for it; inside the package where that is installed.
CONF = next((folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if folder.is_dir()), _PACKAGE / "conf")
SEARCHPATH = "hydra.searchpath"
# Groups that a folder of the user's own may hold.
KNOWN = ("calibration", "experiment", "hydra", "measures", "model", "pruner", "task")

# Folders of this process beside ``CONF``, in the order of the search.
_own: tuple[Path, ...] = ()


def folders() -> tuple[Path, ...]:
    """Return all folders with configuration, in the order in which Hydra searches them."""
    return (CONF, *_own)


def own_folders() -> tuple[Path, ...]:
    """Return the folders of the user's own among them, as absolute paths."""
    return _own


def search_also(given: Iterable[Path]) -> None:
    """Set the folders that this process searches after ``CONF``."""
    global _own  # noqa: PLW0603 - as the search path of imports, it belongs to the process
    _own = tuple(dict.fromkeys(Path(folder).absolute() for folder in given))


def searched() -> list[str]:
    """Return the override that makes Hydra's ``compose`` search the same folders; empty if there are none."""
    if not _own:
        return []
    listed = ",".join('"' + f"file://{folder}".replace('"', '\\"') + '"' for folder in _own)
    return [f"{SEARCHPATH}=[{listed}]"]


def folder_of(entry: str) -> Path:
    """Return the folder that an entry of Hydra's search path names: a path, ``file://`` or ``pkg://``.

    Raises ValueError, with the way out, if there is no such folder or it holds no configuration group.
    """
    parts = urlsplit(entry)
    path = _of_package(entry, parts.netloc) if parts.scheme == "pkg" else _of_path(entry, parts.scheme)
    if not path.is_dir():
        raise ValueError(f"{entry} is not a folder; give the folder that holds your pruner/, task/ or experiment/")
    if not any((path / group).is_dir() for group in KNOWN):
        inside = next((name for name in ("conf", "config", "configs") if (path / name).is_dir()), None)
        hint = f"; did you mean {entry.rstrip('/')}/{inside}?" if inside else ""
        raise ValueError(f"{entry} holds none of the folders {', '.join(KNOWN)}{hint}")
    return path.absolute()


def _of_package(entry: str, package: str) -> Path:
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{entry}: there is no package {package}; install it, or add its folder to PYTHONPATH")
    return Path(next(iter(spec.submodule_search_locations)))


def _of_path(entry: str, scheme: str) -> Path:
    if scheme not in ("", "file"):
        raise ValueError(f"{entry}: write a path, file://PATH or pkg://PACKAGE")
    # As Hydra reads it: nothing is decoded.
    return Path(entry.removeprefix("file://")).expanduser()


def shadowed(own: Sequence[Path]) -> list[str]:
    """Return a sentence for each choice of the user's own that has the name of one before it in the search."""
    found = []
    for at, folder in enumerate(own):
        for path in sorted(folder.glob("*/*.yaml")):
            inside = path.relative_to(folder)
            earlier = next((place for place in (CONF, *own[:at]) if (place / inside).is_file()), None)
            if earlier is not None:
                found.append(f"{path} is never read, since {earlier / inside} comes first; give it another name")
    return found
