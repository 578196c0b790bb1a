"""``python -m pipeline.track.sync`` sends the runs that are only on this disk to the W&B server, each of them once.

wandb itself leaves a file ``run-….wandb.synced`` beside the log of a run that the server has taken; such a run is not
sent again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.arguments import Arguments
from pipeline.common.secrets import redact
from pipeline.store.artifacts import Store
from pipeline.store.records import load_records
from pipeline.track.connection import base_url, resolve_mode
from pipeline.track.names import folder_of_runs
from pipeline.track.readback import read_run
from pipeline.track.receipt import SYNCED as _MARK

_LONGEST = 500
SENT, FAILED, LEFT = "sent", "failed", "left"
# Time limit for one run with all its files.
SECONDS = 3600


@dataclass(frozen=True)
class Sent:
    """Outcome of a run: sent, failed or left, and why."""

    status: str
    why: str = ""


def unsent(store: Store) -> list[Path]:
    """Return the folders of runs that the server lacks wholly or partly, oldest first: offline and cut online ones."""
    jobs = load_records(store.jobs)
    cut = {Path(job.wandb["directory"]).name for job in jobs if job.wandb.get("sync") and job.wandb.get("directory")}
    folders = [path for path in folder_of_runs(store.root).glob("*run-*") if _is_offline(path) or path.name in cut]
    waiting = [path for path in folders if any(path.glob("*.wandb")) and not _is_sent(path)]
    return sorted(waiting, key=lambda path: path.name.removeprefix("offline-"))


def _is_offline(path: Path) -> bool:
    return path.name.startswith("offline-run-")


def _is_sent(path: Path) -> bool:
    return any(path.glob(_MARK))


def send_all(store: Store) -> Iterator[tuple[Path, Sent]]:
    """Send the waiting runs one after another. No other process sends from this folder meanwhile."""
    with store.alone("sync"):
        for folder in unsent(store):
            yield folder, _send(folder)


def _send(folder: Path) -> Sent:
    try:
        if read_run(folder).exit_code is None:
            return Sent(
                LEFT,
                f"its log is incomplete: its job is still running or was killed (wandb sync {folder} uploads it "
                "anyway)",
            )
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Sent(FAILED, redact(str(error)))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            output = _wandb_sync(folder, Path(scratch))
            lost = _lost(Path(scratch))
    except (OSError, subprocess.SubprocessError) as error:
        return Sent(FAILED, redact(str(error)))
    # The exit status of wandb is 0 for most failures: only the mark counts.
    if not _is_sent(folder):
        return Sent(FAILED, _cause(output))
    if lost:
        # The server has the run without its files: remove the mark, and the next try sends them.
        for mark in folder.glob(_MARK):
            mark.unlink()
        return Sent(FAILED, f"not all of its files were uploaded: {redact(lost)}")
    return Sent(SENT)


def _wandb_sync(folder: Path, scratch: Path) -> str:
    """Send one run and return what wandb prints. Its own logs go to ``scratch``."""
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", str(folder)]
    environment = {key: value for key, value in os.environ.items() if key not in ("WANDB_MODE", "WANDB_SERVICE")}
    environment |= {"WANDB_BASE_URL": base_url(), "WANDB_ERROR_REPORTING": "false", "WANDB_DIR": str(scratch)}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        env=environment,
        check=False,
    )
    return done.stdout


def _cause(output: str) -> str:
    """Return the lines of wandb's output that mention an error, else the last ones, as one line without secrets."""
    lines = [line.removeprefix("wandb:").strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines[-2:] or ["wandb sync printed nothing"]
    return redact(" ".join(errors))[:_LONGEST]


def _lost(scratch: Path) -> str:
    """Return errors about artifacts and files that the server did not take, which only wandb's log contains."""
    lines = [
        line for path in scratch.rglob("debug-sync*.log") for line in path.read_text(encoding="utf-8").splitlines()
    ]
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    said = [str(entry.get("msg", "")) for entry in entries if entry.get("level") == "ERROR"]
    return " ".join(dict.fromkeys(text.strip() for text in said if "artifact" in text or "upload" in text))[:_LONGEST]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns exit status 1 if a run could not be sent, 2 without a key or a server, else 0."""
    parser = Arguments(
        prog="python -m pipeline.track.sync", description="Upload offline runs to the W&B server, each of them once."
    )
    chosen: Any = parser.parse_args(arguments)
    if not folder_of_runs(chosen.outputs).is_dir():
        print(f"no run in {chosen.outputs}")
        return 0
    store = Store(chosen.outputs)
    waiting = len(unsent(store))
    if not waiting:
        print(f"every run in {chosen.outputs} has been uploaded")
        return 0
    connection = resolve_mode("online")
    if connection.mode != "online":
        print(f"runs to upload: {waiting}; none was uploaded: {connection.reason}", file=sys.stderr)
        return 2
    print(f"uploading {waiting} runs to {base_url()}")
    failed = 0
    for place, (folder, sent) in enumerate(send_all(store), start=1):
        why = f": {sent.why}" if sent.why else ""
        print(f"  {place}/{waiting} {sent.status:6s} {folder.name}{why}", flush=True)
        failed += sent.status == FAILED
    if failed:
        print(f"{failed} of {waiting} runs could not be uploaded; run the same command again to retry", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
