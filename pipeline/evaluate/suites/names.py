"""The names of lm-eval's own tasks, groups and tags, and which of them run generated code, read from its files as text.

lm-eval's own index takes several seconds to build, too long for a check of the command line.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

_NAME = re.compile(r"""^["']?(?:task|group)["']?:[ \t]*["']?([\w.+:-]+)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)
_TAGS = re.compile(
    r"""^["']?tag["']?:[ \t]*(?:["']?([\w.+-]+)["']?[ \t]*$|\n((?:[ \t]*-[ \t]*["']?[\w.+-]+["']?[ \t]*\n)+))""",
    re.MULTILINE,
)
_INCLUDE = re.compile(r"^include:[ \t]*(\S+)", re.MULTILINE)
_UNSAFE = re.compile(r"^unsafe_code:[ \t]*true", re.MULTILINE | re.IGNORECASE)


@cache
def names(folder: Path | None = None) -> dict[str, Path]:
    """Return the file of every task and group by name, of lm-eval itself or of a folder.

    Tags map to the file of one of their tasks. A few that are written in unusual ways are missing.
    """
    found: dict[str, Path] = {}
    tags: dict[str, Path] = {}
    for path in sorted(path for path in (folder or _folder()).rglob("*.y*ml") if path.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace")
        for name in _NAME.findall(text):
            found.setdefault(name, path)
        for single, listed in _TAGS.findall(text):
            for tag in [single, *re.findall(r"[\w.+][\w.+-]*", listed)]:
                tags.setdefault(tag, path)
    tags.pop("", None)
    return tags | found


def runs_code(path: Path, seen: frozenset[Path] = frozenset()) -> bool:
    """Return whether a task file, or one that it includes, says that the task runs what the model writes.

    Members of groups are not checked. Files in ``seen`` include this one and are not read again.
    """
    if path in seen or not path.is_file():
        return False
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    included = _INCLUDE.search(text)
    return bool(_UNSAFE.search(text)) or (included is not None and runs_code(path.parent / included[1], seen | {path}))


def _folder() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "tasks"
