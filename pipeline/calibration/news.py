"""News articles that an installed Python package carries."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.calibration.base import CalibrationSet
from pipeline.store import file_digest


@dataclass(frozen=True)
class News(CalibrationSet):
    """The ``document`` texts of a JSON-lines ``file`` inside the installed ``package``."""

    package: str = ""
    file: str = ""

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"content": file_digest(self._path())[:16]}

    def documents(self) -> list[str]:
        with self._path().open(encoding="utf-8") as lines:
            return [json.loads(line)["document"] for line in lines if line.strip()]

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
