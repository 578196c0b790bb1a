"""Command lines of the programs that read results: all take ``outputs=DIR`` as ``pipeline.main`` does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_KEY = "outputs="


class Arguments(argparse.ArgumentParser):
    """A parser with the folder of results as ``outputs``, written ``outputs=DIR`` or ``--outputs DIR``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.add_argument(
            "--outputs",
            type=Path,
            default=Path("outputs"),
            metavar="DIR",
            help="the results folder; outputs=DIR works, too (default: outputs)",
        )

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the arguments, reading ``outputs=DIR`` as ``--outputs=DIR``."""
        given = sys.argv[1:] if args is None else args
        written = [f"--{word}" if word.startswith(_KEY) else word for word in given]
        return super().parse_known_args(written, namespace)
