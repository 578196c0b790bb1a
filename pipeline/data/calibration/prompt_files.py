"""Prompts for a model to continue, from a file or the built-in ones. Light to import, for use in checks."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.calibration.text_files import files_of, read

BUILT_IN = Path(__file__).with_name("prompts.txt")
FIELD = "text"


def read_prompts(given: str | None) -> list[str]:
    """Read the prompts of a file, or the built-in ones if None.

    A .txt file has one prompt a line, in which ``\\n`` stands for a line break; other files have one a row. Blank
    prompts are left out. Raises ValueError in plain words, also for a file without prompts.
    """
    (path, *others) = [BUILT_IN] if given is None else files_of(given)
    if others:
        raise ValueError(f"calibration.path={given} is a directory; give a single file of prompts")
    texts = read(path, FIELD)
    if path.suffix.lower() == ".txt":
        texts = [line.replace("\\n", "\n") for text in texts for line in text.split("\n")]
    prompts = [text for text in texts if text.strip()]
    if not prompts:
        raise ValueError(f"calibration.path={given} contains no prompt; give a file with one prompt per line")
    return prompts


def too_few(there: int, wanted: int) -> str | None:
    """Return a sentence if there are fewer prompts than wanted, else None."""
    if there >= wanted:
        return None
    return (
        f"calibration.sequences={wanted}, but there are only {there} prompts; lower it, or add prompts to "
        "calibration.path"
    )
