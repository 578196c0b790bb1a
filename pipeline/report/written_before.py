"""The page as it was written last: while nothing that it depends on has changed, it is not written again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.common.files import write_json
from pipeline.config.schema import FiguresConfig
from pipeline.plot.drawn_before import FigureResult, state_of
from pipeline.report.commands import commands_of
from pipeline.store.artifacts import Store
from pipeline.store.integrity import digest, file_digest, read_sealed, sealed
from pipeline.store.records import OF_A_RUN, load_records
from pipeline.tables.choice import Choice

_MEMORY = ".page.json"


def state_of_page(outputs: Path, choice: Choice, form: FiguresConfig, drawn: Sequence[FigureResult]) -> str:
    """Return a digest of all that the page depends on: tables, figures, records, commands, code and libraries."""
    store = Store(outputs)
    records = [record for record in load_records(store.jobs) if record.settings_id == choice.settings_id]
    own = {record.job for record in records if record.model_id == choice.model_id}
    return digest(
        {
            "tables": state_of(outputs, choice, form),
            "figures": [{**asdict(one), "drawn": False, "paths": [*map(str, one.paths)]} for one in drawn],
            "files": [file_digest(path) for one in drawn for path in one.paths],
            "records": [
                {name: value for name, value in asdict(record).items() if name not in OF_A_RUN} for record in records
            ],
            "commands": commands_of(store.runs, own),
        }
    )


def is_written(path: Path, state: str) -> bool:
    """Return whether the page is the one that was written in this state."""
    try:
        return read_sealed(path.with_name(_MEMORY)) == {"state": state, "page": file_digest(path)}
    except (OSError, ValueError):
        return False


def remember(path: Path, state: str) -> None:
    """Keep in which state the page was written."""
    write_json(path.with_name(_MEMORY), sealed({"state": state, "page": file_digest(path)}))
