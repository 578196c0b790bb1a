"""Causes of an error: the first of them, and the line of code outside the program and its libraries that raised it."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

_PROGRAM = str(Path(__file__).resolve().parents[1])
_LIBRARIES = tuple(
    os.path.realpath(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")
)
_MODULE = "<module>"


def causes(error: BaseException) -> list[BaseException]:
    """Return an error and what it was raised from or during, the first cause last."""
    seen = [error]
    while (cause := seen[-1].__cause__ or seen[-1].__context__) is not None and cause not in seen:
        seen.append(cause)
    return seen


def own_line(error: BaseException) -> str | None:
    """Return the function, file and line of the user's own code that an error comes from; None if it comes from none.

    A ValueError of the program itself is a sentence that needs no place.
    """
    if isinstance(error, ValueError) and _is_ours(error):
        return None
    for cause in reversed(causes(error)):
        for frame, line in reversed(list(traceback.walk_tb(cause.__traceback__))):
            path = frame.f_code.co_filename
            if os.path.isfile(path) and not _is_below(path, (_PROGRAM, *_LIBRARIES)):
                function = frame.f_code.co_qualname
                return f"{path}, line {line}" if function == _MODULE else f"{function}, {path}, line {line}"
    return None


def _is_ours(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or _is_below(frames[-1].f_code.co_filename, (_PROGRAM,))


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return os.path.realpath(path).startswith(tuple(f"{folder}{os.sep}" for folder in folders))
