"""Words of a command line: the groups and keys that they set, the alternatives, and the words that cannot be read."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from pipeline.check.hydra_settings import hydra_problem, is_hydras
from pipeline.check.sweeper import chooses_trials
from pipeline.config import schema
from pipeline.config.choices import choices_of, nearest
from pipeline.evaluate.suites.names import names

# Most jobs of one command, and most characters and levels of nesting of one of its words.
MOST_JOBS, _LONGEST, _DEEPEST = 10_000, 10_000, 20
_SHOWN = 100
# How to give a path to a group.
_BY_PATH = {
    "model": "model=hf model.path={}",
    "calibration": "calibration=file calibration.path={}",
    "task": "task=lm_eval task.include={} task.names=[NAME]",
}
# Characters that a shell interprets between double quotes.
_SHELL = set('"$`\\!')
_ONE_EXPERIMENT = "give one experiment at a time, since each defines its own sweep"
# Keys that count once for all jobs of a sweep, with the reason.
_ONCE = {"outputs": "a sweep has one outputs folder", "figures": "a sweep draws its figures once, at its end"}


@dataclass
class Words:
    """Choices of groups and values of keys, each with all its alternatives in a sweep, and the problems found.

    ``added`` are the keys written with a ``+``, which should not exist yet; ``growing`` are the keys written with
    ``+`` or ``++``, which need not exist. ``sampled`` says that a sweeper chooses among the alternatives.
    """

    groups: dict[str, list[Any]] = field(default_factory=dict)
    values: dict[str, list[Any]] = field(default_factory=dict)
    added: set[str] = field(default_factory=set)
    growing: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    multirun: bool = False
    sampled: bool = False

    @property
    def jobs(self) -> int:
        """Number of configurations to check: all jobs of a grid; of sampled values, each beside the first others."""
        values = [len(options) for options in self.values.values()]
        choices = math.prod(len(options) for options in self.groups.values())
        return choices * (1 + sum(values) if self.sampled else math.prod(values))


def read_words(arguments: Sequence[str], multirun: bool) -> Words:
    """Sort the overrides of a command line. Unusable ones are left out; of equal keys the last one counts."""
    words = Words(multirun=multirun, sampled=chooses_trials(arguments))
    parser = OverridesParser.create()
    for argument in arguments:
        try:
            override = _parsed(parser, argument)
            key = override.key_or_group
            if is_hydras(key):
                if problem := hydra_problem(override, shortened(argument)):
                    words.problems.append(problem)
                continue
            if key == schema.EXPERIMENT and key in words.groups:
                raise ValueError(f"{shortened(argument)}: {_ONE_EXPERIMENT}")
            _check_form(override, argument)
            options = _alternatives(parser, override, argument, words.sampled)
            words.problems += _of_sweep(key, options, argument, multirun)
        except ValueError as error:
            words.problems.append(str(error))
            continue
        if key in (*schema.GROUPS, schema.EXPERIMENT):
            known = choices_of(key)
            words.problems += [
                f"{key}={shortened(option)} does not exist; {_meant(key, str(option), known)}"
                for option in options
                if option not in known
            ]
            if kept := [option for option in options if option in known]:
                words.groups[key] = kept
        elif key.partition(".")[0] not in _ONCE or len(options) == 1:
            words.values[key] = options
            if override.type.name in ("ADD", "FORCE_ADD"):
                words.growing.add(key)
            if override.type.name == "ADD":
                words.added.add(key)
    if words.jobs > MOST_JOBS:
        words.problems.append(f"the sweep has {words.jobs} jobs, more than {MOST_JOBS}; split it into several")
    return words


def _meant(group: str, option: str, known: Sequence[str]) -> str:
    """Return what to write instead of an unknown choice. A path or a task name has its own key."""
    is_path = "/" in option or os.path.exists(option)
    if is_path and group in _BY_PATH:
        return f"write {_BY_PATH[group].format(shlex.quote(shortened(option)))}"
    if group == "task" and option in names():
        return f"write task=lm_eval task.names=[{option}]"
    return nearest(option[:_SHOWN], known)


def shortened(text: object) -> str:
    """Return a text short enough for a message to quote it."""
    words = str(text)
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"


def _parsed(parser: OverridesParser, argument: str) -> Override:
    """Parse an argument. Raises ValueError with a sentence if it is not ``key=value``."""
    shown = shortened(argument)
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise ValueError(f"cannot read {shown!r}: it is not valid UTF-8; write it in UTF-8") from None
    if "\0" in argument:
        raise ValueError(f"cannot read {shown!r}: it contains a NUL character; remove it")
    if len(argument) > _LONGEST:
        raise ValueError(f"cannot read {shown!r}: it has {len(argument)} characters; write at most {_LONGEST}")
    if max(argument.count(opening) for opening in "[{(") > _DEEPEST and _depth(argument) > _DEEPEST:
        raise ValueError(f"cannot read {shown!r}: it is nested too deeply; write key=value")
    try:
        return parser.parse_override(argument)
    except HydraException as error:
        raise ValueError(f"cannot read {shown!r}: {_way_to_write(parser, argument, error)}") from None


def _in(word: str) -> str:
    return f'"{word}"'


def _way_to_write(parser: OverridesParser, argument: str, error: HydraException) -> str:
    """Return how to quote the value if only quotes are missing, else the message of the parser."""
    key, equals, value = argument.partition("=")
    literal = value.replace("\\", "\\\\").replace("'", "\\'")
    quoted = f"{key}='{literal}'"
    with suppress(HydraException):
        if equals and parser.parse_override(quoted).value() == value:
            return f"quote the value, as in {shortened(shlex.quote(quoted) if _SHELL & set(quoted) else _in(quoted))}"
    return f"{shortened(first_line(error))}; write key=value"


def _depth(text: str) -> int:
    depth = deepest = 0
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        deepest = max(deepest, depth)
    return deepest


def _check_form(override: Override, argument: str) -> None:
    """Raise ValueError for anything but setting a key of the configuration."""
    key, kind, shown = override.key_or_group, override.type.name, shortened(argument)
    if override.is_delete() or override.package is not None:
        raise ValueError(f"{shown}: write key=value; keys can be set, not deleted or moved")
    if kind != "CHANGE" and key in (*schema.GROUPS, schema.EXPERIMENT):
        raise ValueError(f"{shown}: write {key}=CHOICE, without +")
    if key == "sweep" or key.startswith("sweep."):
        raise ValueError(f"{shown}: sweep belongs to experiments; list the values of a key, separated by commas")
    if key == "sparsity_of":
        raise ValueError(f"{shown}: sparsity_of belongs to experiments; give sparsity=VALUE")
    if key.partition(".")[0] == "options_of":
        raise ValueError(f"{shown}: options_of belongs to experiments; give pruner.KEY=VALUE")


def _alternatives(parser: OverridesParser, override: Override, argument: str, sampled: bool) -> list[Any]:
    """Return all values, as the jobs of a sweep read them; of a sampled interval, its ends.

    Raises ValueError for a sweep that does not list its values.
    """
    if not override.is_sweep_override():
        return [override.value()]
    if sampled and override.is_interval_sweep():
        ends: Any = override.value()
        return [ends.start, ends.end]
    key, way = override.key_or_group, "list the values of a sweep, separated by commas"
    try:
        if override.is_range_sweep():
            wanted: Any = override.value()
            if (wanted.stop - wanted.start) / wanted.step > MOST_JOBS:
                raise ValueError("too many")
        texts = list(islice(override.sweep_string_iterator(), MOST_JOBS + 1))
        options = [parser.parse_override(f"{key}={text}").value() for text in texts]
    except (HydraException, ValueError, TypeError, OverflowError, ZeroDivisionError):
        raise ValueError(f"{shortened(argument)}: {way}") from None
    if not options:
        raise ValueError(f"{shortened(argument)} lists no values; {way}")
    return options


def _of_sweep(key: str, options: Sequence[Any], argument: str, multirun: bool) -> list[str]:
    if len(options) == 1:
        return []
    shown = shortened(argument)
    if reason := _ONCE.get(key.partition(".")[0]):
        return [f"{shown}: {reason}"]
    if key == schema.EXPERIMENT:
        raise ValueError(f"{shown}: {_ONE_EXPERIMENT}")
    return [] if multirun else [f"{shown} lists {len(options)} values: add -m to run them as a sweep"]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if there is none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
