"""Text that an installed Python package carries: no download, no hub."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.calibration.base import CalibrationSet
from pipeline.calibration.text_files import read
from pipeline.store import file_digest


@dataclass(frozen=True)
class PackagedText(CalibrationSet):
    """The different texts in ``field`` of the rows of ``file`` inside the installed ``package``."""

    package: str = ""
    file: str = ""
    field: str = "text"

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"content": file_digest(self._path())[:16]}

    def documents(self) -> list[str]:
        # Question sets repeat a text for each of its questions; calibration counts it once.
        return list(dict.fromkeys(read(self._path(), self.field)))

    def _path(self) -> Path:
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise ValueError(f"calibration {self.name} needs the package {self.package}; `make setup` installs it")
        path = Path(spec.origin).parent / self.file
        if not path.is_file():
            raise ValueError(
                f"package {self.package} holds no file {self.file}; `make setup` installs the right release"
            )
        return path
