"""Words of the command line, sorted: flags, overrides, and folders with configuration of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from pipeline.check.hydra_settings import CONFIG_DIR, DRY_RUN, MULTIRUN, SHOWING, flag_problems
from pipeline.config.experiment import expand
from pipeline.config.schema import EXPERIMENT
from pipeline.config.search_path import SEARCHPATH, folder_of, search_also, searched, shadowed
from pipeline.config.synonyms import contradictions, translated


@dataclass(frozen=True)
class CommandLine:
    """A command line as it was meant.

    ``words`` are all of it for Hydra, with the sweep of an experiment written out and folders of the user's own as an
    override of the search path; ``overrides`` those of the form ``key=value``, without the search path. ``shows`` says
    that Hydra only prints something and runs nothing.
    """

    words: tuple[str, ...]
    overrides: tuple[str, ...]
    problems: tuple[str, ...]
    multirun: bool
    shows: bool
    dry_run: bool


def read(arguments: Sequence[str]) -> CommandLine:
    """Sort the words of a command line. From here on, this process searches its folders with configuration too."""
    others, problems = take_folders(arguments)
    shows = any(word.partition("=")[0] in SHOWING for word in others)
    # Hydra's users write +experiment=, since in most projects the key is not there yet.
    plain = [word.removeprefix("+") if word.startswith(f"+{EXPERIMENT}=") else word for word in translated(others)]
    words = plain if shows else expand(plain)
    overrides = [word for word in words if not word.startswith("-")]
    return CommandLine(
        words=(*(word for word in words if word != DRY_RUN), *searched()),
        overrides=tuple(overrides),
        problems=(*flag_problems(words, sys.argv[0].endswith(".py")), *contradictions(others), *problems),
        multirun=any(word in MULTIRUN for word in words),
        shows=shows,
        dry_run=DRY_RUN in words,
    )


def take_folders(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Let this process search the folders with configuration that the words name.

    Returns the other words, and a sentence for each problem with a folder.
    """
    joined = _joined(arguments)
    folders, problems = _folders(joined)
    search_also(folders)
    others = [word for word in joined if word.partition("=")[0] not in (SEARCHPATH, *CONFIG_DIR)]
    return others, [*problems, *shadowed(folders)]


def _joined(arguments: Sequence[str]) -> list[str]:
    """Return the words with the value of ``--config-dir`` in the same word."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] in CONFIG_DIR:
            joined[-1] = f"{CONFIG_DIR[-1]}={word}"
        else:
            joined.append(word)
    return joined


def _folders(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the folders that the command line adds to Hydra's search path, in its order, and problems with them."""
    named, listed = [], []
    for word in words:
        key, _, value = word.partition("=")
        if key in CONFIG_DIR:
            named.append(value)
        elif key == SEARCHPATH:
            listed = _values(word)
    folders, problems = [], []
    for entry in [*named, *listed]:
        try:
            folders.append(folder_of(entry))
        except ValueError as error:
            problems.append(f"configuration: {error}")
    return folders, problems


def _values(word: str) -> list[str]:
    """Return the entries of an override of the search path; of one that cannot be read, its text as the only entry."""
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:
        value = word.partition("=")[2]
    return [str(entry) for entry in (value if isinstance(value, list) else [value])]
