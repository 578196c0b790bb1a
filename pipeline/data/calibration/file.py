"""Calibration text from the user's own files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.data.calibration.base import CalibrationSet
from pipeline.data.calibration.text_files import files_of, kind_of, read
from pipeline.store.integrity import digest, file_digest


@dataclass(frozen=True)
class FileText(CalibrationSet):
    """The documents of the file or directory ``path``: one in a text file, else one a row in ``field``."""

    path: str = ""
    field: str = "text"

    def identity(self) -> dict[str, Any]:
        """Return the identity, with file contents instead of the path; the kind says how the same bytes are read."""
        identity = super().identity()
        del identity["path"]
        return identity | {"content": digest([[kind_of(file), file_digest(file)] for file in files_of(self.path)])}

    def documents(self) -> list[str]:
        return [document for file in files_of(self.path) for document in read(file, self.field)]
