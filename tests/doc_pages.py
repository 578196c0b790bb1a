"""Pages of documentation whose code blocks are carried out as they stand."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from places import PYTHONPATH, ROOT

from pipeline.check.command_line import problems
from pipeline.config.experiment import expand
from pipeline.config.search_path import CONF, folder_of, search_also, searched
from pipeline.run.compose import resolve
from pipeline.run.dry_run import jobs_of
from pipeline.run.job import run_job
from pipeline.store.records import JobRecord

# A block of code, and the file that it is the content of, if the line above it names one.
_BLOCK = re.compile(r"(?:^`(?P<path>[^`\n]+)`\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class Page:
    """A page of docs/: its files, its commands and its scripts, all blocks of the page together."""

    def __init__(self, name: str) -> None:
        blocks = list(_BLOCK.finditer((ROOT / "docs" / name).read_text(encoding="utf-8")))
        self.files = {block["path"]: block["text"] for block in blocks if block["path"]}
        free = [(block["kind"], block["text"]) for block in blocks if not block["path"]]
        self.commands = [line for kind, text in free if kind == "sh" for line in text.splitlines()]
        self.scripts = [text for kind, text in free if kind == "python"]
        assert {kind for kind, _ in free} <= {"sh", "python"}

    def write(self, folder: Path) -> None:
        for name, text in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


def start(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Carry out a command of a page in a process of its own, as in a folder from which the program can be imported."""
    python, *words = shlex.split(command)
    assert python == "python"
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def call(command: str) -> int:
    """Carry out a command of a page in this process, whose folder is the page's."""
    python, flag, module, *words = shlex.split(command)
    assert (python, flag) == ("python", "-m")
    return importlib.import_module(f"{module}.__main__").main(words)


def job_words(command: str) -> tuple[list[str], bool]:
    """The overrides of a command of a page, whose folders this process then searches, and whether it is a sweep."""
    python, flag, module, *words = shlex.split(command)
    assert (python, flag, module) == ("python", "-m", "pipeline.main")
    search_also(folder_of(word.partition("=")[2]) for word in words if word.startswith("--config-dir="))
    return expand([word for word in words if not word.startswith("-")]), "-m" in words


def refusals(command: str) -> list[str]:
    """Why a command of a page is refused."""
    return problems(*job_words(command))


def run_jobs(command: str) -> list[JobRecord]:
    """Check a command of a page, and run its jobs in this process, whose folder is the page's."""
    words, sweep = job_words(command)
    assert problems(words, sweep) == []
    jobs = jobs_of(words)
    assert sweep or len(jobs) == 1
    records = []
    for number, job in enumerate(jobs):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            settings = resolve(compose("config", overrides=[*job, *searched()]))
        records.append(run_job(settings, "page", Path("outputs/runs/page", str(number))))
    assert [record.error for record in records] == [None] * len(records)
    return records
