"""The tidy tables of an outputs folder, each read when it is first asked for: the interface for Python."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.config.choices import nearest
from pipeline.tables.stored import REQUIRED, NoTables, check_folders, read_table
from pipeline.tables.write import bring_up_to_date


class OutputTables:
    """The tables of an outputs folder, as entries (``tables["scores"]``) and as attributes (``tables.scores``).

    A table is read and checked when it is first asked for, and kept. One without any rows is an empty frame with the
    columns that it would have at least. ``dict(tables)`` reads all of them; ``items`` is the table of that name. Raises
    AttributeError or KeyError, with the nearest name, for another name, and `DamagedTable` for a file that is no such
    table.
    """

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self._read: dict[str, pd.DataFrame] = {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in REQUIRED:
            raise KeyError(f"there is no table {name}; {nearest(str(name), REQUIRED)}")
        if name not in self._read:
            frame = read_table(self.outputs, name)
            self._read[name] = pd.DataFrame(columns=list(REQUIRED[name])) if frame is None else frame
        return self._read[name]

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name.startswith("_") or name not in REQUIRED:
            raise AttributeError(f"there is no table {name}; {nearest(name, REQUIRED)}")
        return self[name]

    def keys(self) -> list[str]:
        """Return the names of the tables."""
        return list(REQUIRED)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *REQUIRED]

    def __iter__(self) -> Iterator[str]:
        return iter(REQUIRED)

    def __len__(self) -> int:
        return len(REQUIRED)

    def __repr__(self) -> str:
        return f"Tables of {self.outputs}: {', '.join(REQUIRED)}"


def load(outputs: str | os.PathLike[str] = "outputs") -> OutputTables:
    """Load the results of finished jobs from an outputs folder, table by table as they are asked for.

    ::

        tables = load("outputs")
        scores = tables.scores.query("main and kind == 'generative'")
        scores.pivot_table(index="pruner", columns="sparsity", values="value")
        tables["measures"].groupby("protocol")["kl"].mean()

    Args:
        outputs: the folder that was given as ``outputs`` on the command line.

    Returns:
        The tables ``scores``, ``comparisons``, ``fidelity``, ``items``, ``rankings``, ``measures``, ``agreement``,
        ``set_measures``, ``trajectories``, ``options``, ``option_tokens``, ``prompts`` and ``jobs``, as attributes
        and as entries of an object.

    Raises:
        NoTables: if the folder holds no tables.
        DamagedTable: for a folder that leads elsewhere.
    """
    folder = Path(outputs).expanduser()
    check_folders(folder)
    bring_up_to_date(folder)
    if not any((folder / "tables").glob("*.parquet")):
        raise NoTables(
            f"no tables in {folder / 'tables'}; run the pipeline first, e.g. python -m pipeline.main pruner=shortgpt "
            f"sparsity=0.2 outputs={folder}"
        )
    return OutputTables(folder)
