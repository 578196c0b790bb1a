"""Text that an installed Python package carries: no download, no hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.packages import package_file
from pipeline.data.calibration.base import CalibrationSet
from pipeline.data.calibration.text_files import read
from pipeline.store.integrity import file_digest


@dataclass(frozen=True)
class PackagedText(CalibrationSet):
    """The distinct texts in ``field`` of the rows of ``file`` inside the installed ``package``."""

    package: str = ""
    file: str = ""
    field: str = "text"

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"content": file_digest(self._path())[:16]}

    def documents(self) -> list[str]:
        # Question sets repeat a text for each of its questions; calibration counts it once.
        return list(dict.fromkeys(read(self._path(), self.field)))

    def _path(self) -> Path:
        return package_file(self.package, self.file, f"calibration {self.name}")
