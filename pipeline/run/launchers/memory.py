"""Memory for this process, in total and left: the machine's, or that of a control group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 2**30
_CGROUPS, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_KILLS = Path("/proc/vmstat")


@dataclass(frozen=True)
class Memory:
    """Memory in total and left, in bytes."""

    total: int
    available: int


def memory() -> Memory:
    """Return the narrowest of the machine and the control groups of this process (containers, batch systems)."""
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    for limit, used in _limits():
        if limit < machine.total:
            total, available = min(total, limit), min(available, max(limit - used, 0))
    return Memory(total, available)


def kills() -> int | None:
    """Return how many processes the kernel has killed for lack of memory since the start; None if it does not say."""
    try:
        return next(
            int(line.split()[1])
            for line in _KILLS.read_text(encoding="utf-8").splitlines()
            if line.startswith("oom_kill ")
        )
    except (OSError, StopIteration):
        return None


def held_by(process: psutil.Process) -> int:
    """Return the bytes that a process and its descendants hold now. Pages that they share count for each of them."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    held = 0
    for member in family:
        try:
            held += member.memory_info().rss
        except psutil.Error:
            continue
    return held


def _limits() -> Iterator[tuple[int, int]]:
    """Yield limit and use of the groups of this process and those above them. Cached files count as free."""
    try:
        lines = _MINE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            root, names = _CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            root, names = _CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if (limits := _read(folder, *names)) is not None:
                yield limits
            if folder == root:
                break


def _read(folder: Path, limit: str, used: str, cached: str) -> tuple[int, int] | None:
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
        files = next((int(line.split()[1]) for line in lines if line.split()[0] == cached), 0)
        return int((folder / limit).read_text(encoding="utf-8")), int(
            (folder / used).read_text(encoding="utf-8")
        ) - files
    except (OSError, ValueError, IndexError):
        # No such group here, or no limit: the word "max".
        return None
