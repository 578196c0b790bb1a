"""Documents from text, JSON-lines and parquet files. Light to import, for checks of a path."""

from __future__ import annotations

import difflib
import gzip
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pipeline.common.json_lines import rows_of_lines
from pipeline.common.regular_files import check_regular

WAYS = "give a .txt, .jsonl, .jsonl.gz or .parquet file, or a directory of .txt files"


def files_of(given: str) -> list[Path]:
    """Return the file, or all .txt files of the directory, sorted by name. Raises ValueError in plain words if none."""
    try:
        return _files(given, Path(os.path.expanduser(given)))
    except OSError as error:
        raise ValueError(f"calibration.path={given} cannot be read ({error.strerror}); {WAYS}") from error


def _files(given: str, path: Path) -> list[Path]:
    if not given.strip():
        raise ValueError(f"calibration.path is empty; {WAYS}")
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".txt" and file.is_file())
        if not found:
            raise ValueError(f"calibration.path={given} is a directory without .txt files; {WAYS}")
        for file in found:
            check_regular(file)
        return found
    if not path.is_file():
        raise ValueError(f"calibration.path={given} is neither a file nor a directory; {_hint(path)}{WAYS}")
    if kind_of(path) is None:
        raise ValueError(f"calibration.path={given} has an unsupported file type; {WAYS}")
    check_regular(path)
    return [path]


def kind_of(path: Path) -> str | None:
    """Return the supported suffix of a file name, or None."""
    return next((suffix for suffix in _READERS if path.name.lower().endswith(suffix)), None)


def read(path: Path, field: str) -> list[str]:
    """Read the documents of a file, blank ones included: a text file is one, other files have one a row in ``field``.

    Raises ValueError that names the file and, where there is one, the row.
    """
    kind = kind_of(path)
    if kind is None:
        raise ValueError(f"{path} has an unsupported file type; {WAYS}")
    try:
        check_regular(path)
        return _READERS[kind](path, field)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}); compress it again") from error
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror or _first_line(error)}); give another file"
        ) from error


def text_of(row: Mapping[str, Any], field: str, where: str) -> str:
    """Return the text in a row's ``field``; null counts as empty. Raises ValueError if it is absent or not a text."""
    if field not in row:
        raise ValueError(_absent(field, row, where))
    text = row[field]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ValueError(_not_text(field, type(text).__name__, where))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can contain a lone surrogate, which no tokenizer accepts.
        raise ValueError(f"{where}: field {field} is not valid Unicode ({error.reason}); fix that row") from error
    return text


def _text(path: Path, field: str) -> list[str]:
    return [path.read_text(encoding="utf-8-sig")]


def _json_lines(path: Path, field: str) -> list[str]:
    with path.open("rt", encoding="utf-8-sig") as lines:
        return list(_rows(lines, path, field))


def _zipped_json_lines(path: Path, field: str) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
        return list(_rows(lines, path, field))


def _rows(lines: IO[str], path: Path, field: str) -> Iterator[str]:
    for where, row in rows_of_lines(lines, path, f'{{"{field}": "..."}}'):
        yield text_of(row, field, where)


def _parquet(path: Path, field: str) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            if field not in schema.names:
                raise ValueError(_absent(field, schema.names, str(path)))
            column = file.read(columns=[field]).column(0)
        if pyarrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not any(test(column.type) for test in _text_types(pyarrow.types)):
            raise ValueError(_not_text(field, str(column.type), str(path)))
        return [text or "" for text in column.to_pylist()]
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not a readable Parquet file ({_first_line(error)}); write it again") from error


def _text_types(types: Any) -> list[Callable[[Any], bool]]:
    # A column without any value has the type null: all its documents are empty.
    return [types.is_string, types.is_large_string, types.is_string_view, types.is_null]


_READERS: dict[str, Callable[[Path, str], list[str]]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".jsonl.gz": _zipped_json_lines,
    ".parquet": _parquet,
}


def _absent(field: str, known: Collection[str], where: str) -> str:
    close = difflib.get_close_matches(field, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    there = f"its fields are {', '.join(known)}" if known else "it has no fields"
    return f"{where} has no field {field}; {hint}{there}: set calibration.field"


def _not_text(field: str, kind: str, where: str) -> str:
    return f"{where}: field {field} is {kind}, not text; set calibration.field to a field that contains text"


def _hint(path: Path) -> str:
    siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {path.parent / close[0]}? " if close else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
