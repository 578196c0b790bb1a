"""Ids of runs: a job's own, with a random word of this outputs folder, so that only the same job here resumes one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline.common.files import private_name, write_bytes
from pipeline.store.locks import Busy, holding
from pipeline.track.values import key_of

# Without those that are mistaken for one another.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_LENGTH = 5
_WORD, _REPLACED = "word.txt", "replaced"
# What a server says of an id that one of its users has deleted: it never takes that id again.
_DELETED = "previously created and deleted"


def run_id(outputs: Path, job: str, own: str | None = None) -> str:
    """Return the id of a job's run: its ``own`` if it is given one, else ``<job>-<word>``, or what has replaced it.

    A run of no job gets a random one.
    """
    if own or job:
        return _newest(outputs, own or f"{job}-{_word_of(outputs)}")
    return secrets.token_hex(4)


def replace_deleted(outputs: Path, deleted: str) -> str:
    """Return a new id, which is the job's from now on, for one that the server has deleted."""
    new = f"{deleted}-{_draw()}"
    write_bytes(_folder(outputs) / _REPLACED / f"{deleted}.txt", new.encode())
    return new


def is_deleted(error: BaseException) -> bool:
    """Return whether an error says that the server has deleted the run of this id."""
    return _DELETED in str(error)


@contextmanager
def reserved(outputs: Path, wanted: str) -> Iterator[str]:
    """Yield the id for a run within the block, or another one if a process here is just writing a run of that id."""
    with ExitStack() as held:
        try:
            held.enter_context(holding(outputs / "store" / ".locks" / f"run-{key_of(wanted)}.lock", None))
            own = wanted
        except (Busy, OSError):
            own = f"{wanted}-{_draw()}"
        yield own


def _newest(outputs: Path, given: str) -> str:
    """Return the id that stands for a given one, after all replacements."""
    path = _folder(outputs) / _REPLACED / f"{given}.txt"
    return _newest(outputs, path.read_text(encoding="utf-8")) if path.is_file() else given


def _word_of(outputs: Path) -> str:
    """Return the word of this folder. Of processes that draw one at the same time, the first decides."""
    path = _folder(outputs) / _WORD
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(private_name(f".{_WORD}"))
        scratch.write_text(_draw(), encoding="utf-8")
        try:
            with suppress(FileExistsError):
                os.link(scratch, path)
        except OSError:  # a file system without hard links
            os.replace(scratch, path)
        scratch.unlink(missing_ok=True)
    return path.read_text(encoding="utf-8")


def _draw() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))


def _folder(outputs: Path) -> Path:
    return outputs / "wandb"
