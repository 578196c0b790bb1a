"""Recommended configuration as a YAML file: the words of a command line, one per line, to edit and run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from pipeline.common.files import write_bytes

NAME = "recommended.yaml"
# Text that Hydra reads as a word without quotes.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./:-]*")
_NO_TEXT = ("true", "false", "null", "nan", "inf")


def write_recipe(path: Path, words: Sequence[str], about: str) -> None:
    """Write the words ``key=value`` under a comment."""
    values = {key: _value(text) for key, _, text in (word.partition("=") for word in words)}
    comment = "".join(f"# {line}\n" for line in about.splitlines())
    write_bytes(path, (comment + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)).encode())


def read_recipe(path: Path) -> list[str]:
    """Return the words ``key=value`` of a recipe. Raises ValueError with a sentence if it holds anything else."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give the path of a {NAME}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}; fix it") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{path} should contain one key: value per line, as on the command line of pipeline.main")
    return [f"{key}={_text(value, f'{path}: {key}')}" for key, value in values.items()]


def _value(text: str) -> object:
    """Parse a number, boolean, null or list that would be written back unchanged; return all else as text."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    plain = isinstance(value, bool | int | float | list | None) and _text(value, text) == text
    return value if plain else text


def _text(value: object, where: str) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(_item(item, where) for item in value)}]"
    if not isinstance(value, str | int | float):
        raise ValueError(
            f"{where} is a {type(value).__name__}; write each key of a group on its own line, as group.key"
        )
    return str(value)


def _item(value: object, where: str) -> str:
    """Format an item of a list, in quotes where it would be read as something else."""
    text = _text(value, where)
    if not isinstance(value, str) or (_PLAIN.fullmatch(text) and text.lower() not in _NO_TEXT):
        return text
    # Backslashes stand for themselves, except before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
