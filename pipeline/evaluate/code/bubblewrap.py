"""The command line that isolates a Python program with bubblewrap (``bwrap``, 0.8 or newer)."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

TOOL = "bwrap"
SCRATCH = "/tmp"
_NOBODY = "65534"


def isolated_python(arguments: Sequence[str], scratch_bytes: int, info: int) -> list[str]:
    """Return a command that runs the interpreter, without site packages, with ``arguments`` in new namespaces.

    The interpreter sees the system (/usr) and itself, read-only, and a scratch folder in memory of ``scratch_bytes``.
    bubblewrap writes the number of its first process, as JSON, to the inherited descriptor ``info``.
    """
    tool = shutil.which(TOOL) or TOOL
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    prefix = Path(sys.base_prefix).resolve()
    as_root = os.geteuid() == 0
    reachable = f"{SCRATCH}/python" if as_root else str(prefix)
    size = str(scratch_bytes)
    isolated = [
        *(tool, "--die-with-parent", "--new-session", "--info-fd", str(info)),
        *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", _NOBODY, "--gid", _NOBODY),
        *("--cap-drop", "ALL", "--clearenv", "--setenv", "HOME", SCRATCH, "--setenv", "LC_ALL", "C.UTF-8"),
        *("--proc", "/proc", "--dev", "/dev", "--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--size", size, "--tmpfs", SCRATCH, *_system()),
        *([] if prefix.is_relative_to("/usr") else ["--ro-bind", reachable, str(prefix)]),
        *("--remount-ro", "/", "--chdir", SCRATCH, "--", str(python), "-I", "-S", "-B", *arguments),
    ]
    return [*_as_nobody(str(prefix), reachable), *isolated] if as_root else isolated


def _as_nobody(prefix: str, reachable: str) -> list[str]:
    """Return a command prefix that makes root an ordinary user in the same process, whose watcher remains its parent.

    The limit on processes does not bind root, not even under another number in a namespace. An ordinary user may not
    be able to reach the interpreter (below /root, say), which a bind mount first makes reachable, for this process
    alone.
    """
    bind = f'mount -t tmpfs -o mode=755 none {SCRATCH} && mkdir "$1" && mount --bind "$0" "$1" && shift && exec "$@"'
    return [
        *("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", bind, prefix, reachable),
        *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--no-new-privs", "--"),
    ]


def _system() -> list[str]:
    folders = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            folders += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            folders += ["--ro-bind", str(path), str(path)]
    return folders
