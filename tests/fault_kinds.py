"""The faults themselves: processes that are gone at once, damaged files, small disks."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil


def gone_at_once(pid: int) -> None:
    """A process and all that it has started, at once."""
    with contextlib.suppress(psutil.Error):
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=10)
    # The server of processes belongs to the session.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def artifact_of(path: Path, outputs: Path) -> Path:
    """The artifact that a file belongs to; a record is its own."""
    return outputs / Path(*path.relative_to(outputs).parts[:3])


def damage_file(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    how = chance.choice(("cut", "flipped", "edited", "emptied", "deleted"))
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    if how == "deleted" and path.parent.name != "jobs":
        path.unlink()
        return how
    if how == "edited" and path.suffix == ".json" and digits:
        place = chance.choice(digits)
        content[place] = ord("1") if content[place] != ord("1") else ord("2")
    elif how == "emptied" or not content:
        content = bytearray(b"") if content else bytearray(b"?")
    elif how == "cut":
        content = content[: chance.randrange(len(content))]
    else:
        how = "flipped"
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return how


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = (
        shutil.which("mount") is not None and not subprocess.run(mount, capture_output=True, check=False).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
