"""Settings and flags of Hydra that the command line takes; those that move results or run code are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from pipeline.check.launcher import GROUP, NODE
from pipeline.check.plugins import SAMPLER, SWEEPER
from pipeline.check.sweeper import NODE as SWEEPER_NODE
from pipeline.config.search_path import SEARCHPATH

VERBOSE = "hydra.verbose"
MULTIRUN = ("-m", "--multirun")
CONFIG_DIR = ("-cd", "--config-dir")
DRY_RUN = "--dry-run"
VERSION = "--version"
# With these, Hydra prints something and runs no job.
_CFG, _COMPLETION = ("-c", "--cfg"), ("-sc", "--shell-completion")
SHOWING = ("-h", "--help", "--hydra-help", *_CFG, "-i", "--info", *_COMPLETION)
# The installed command, the one that a shell can complete the words of.
PROGRAM = "pruning-representations"
_RESOLVE = "--resolve"
# Any other flag would make Hydra write outside of outputs, take another primary configuration, or load a pickle.
_FLAGS = (*MULTIRUN, *CONFIG_DIR, *SHOWING, DRY_RUN, VERSION, "-r", "--run", _RESOLVE, "-p", "--package")
# What to do instead of giving a refused setting.
_WAYS = {
    "hydra.run": "results go to outputs=DIR",
    "hydra.sweep": "results go to outputs=DIR",
    "hydra.output_subdir": "results go to outputs=DIR",
    "hydra.job": "results go to outputs=DIR",
    "hydra.mode": "give -m for a sweep",
    "hydra.launcher": f"give {GROUP}=NAME and set its keys one by one",
}


def is_hydras(key: str) -> bool:
    return key == "hydra" or key.startswith(("hydra.", "hydra/"))


def hydra_problem(override: Override, text: str) -> str | None:
    """Return why one of Hydra's keys cannot be overridden and what to write instead; None if it can."""
    key = override.key_or_group
    if key in (GROUP, SWEEPER, SAMPLER) or key.startswith((NODE, SWEEPER_NODE)):
        # The names of launchers, sweepers and their keys are checked in files of their own.
        plain = override.type.name == "CHANGE" and override.package is None
        return None if plain else f"{text}: write plain {key}=VALUE"
    if key == SEARCHPATH:
        # Who reads the command line has looked at its folders.
        return None
    if key == VERBOSE:
        value: Any = override.value()
        names = value if isinstance(value, list) else [value]
        if isinstance(value, bool) or (names and all(isinstance(name, str) and name.strip() for name in names)):
            return None
        return f"{text}: give true or the names of loggers"
    node = ".".join(key.replace("/", ".").split(".")[:2])
    free = (GROUP, f"{NODE}KEY", SWEEPER, f"{SWEEPER_NODE}KEY", SEARCHPATH)
    way = _WAYS.get(node, f"only {', '.join(free)} and {VERBOSE} can be set")
    return f"{text}: {key} cannot be set here; {way}"


def flag_problems(arguments: Sequence[str], by_module: bool = False) -> list[str]:
    """Return a sentence for each flag that the command line does not take, or takes with another one only.

    ``by_module`` says that the program was started as ``python -m pipeline.main``.
    """
    found = []
    for argument in arguments:
        flag = argument.partition("=")[0]
        if argument.startswith("-") and flag not in _FLAGS:
            found.append(f"unknown flag {flag}; use -m for a sweep, --help for help, and key=value for settings")
    flags = {argument.partition("=")[0] for argument in arguments}
    if flags & {*_COMPLETION} and by_module and any(word.startswith("install=") for word in arguments):
        found.append(f'words are completed after the installed command: eval "$({PROGRAM} -sc install=bash)"')
    if _RESOLVE in flags and not flags & {*_CFG, "-h", "--help"}:
        found.append(f"{_RESOLVE} belongs to --cfg or --help; write --cfg job {_RESOLVE} to see the configuration")
    if (parts := flags & {"-p", "--package"}) and not flags & {*_CFG}:
        found.append(f"{', '.join(parts)} belongs to --cfg; write --cfg job --package pruner to see a part")
    given = [
        names[-1] for names in (("-r", "--run"), MULTIRUN, _CFG, ("-i", "--info"), _COMPLETION) if flags & {*names}
    ]
    if len(given) > 1 and not flags & {"-h", "--help", "--hydra-help"}:
        found.append(f"{' and '.join(given)} do not go together; give one of them")
    return found
