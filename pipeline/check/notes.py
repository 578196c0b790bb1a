"""What a command line that can be run says in vain: told before the jobs start, without stopping them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.check.words import Words, read_words, shortened
from pipeline.config.choices import read_choice
from pipeline.config.signature import declared
from pipeline.config.sparsity import parse

_ONE_JOB = "so the jobs that differ in it alone are one job"


def notes(arguments: Sequence[str], multirun: bool) -> list[str]:
    """One sentence for each thing that a command line without problems asks for and does not get."""
    words = read_words(arguments, multirun)
    return [*_ignored(words), *_repeated(words)]


def _ignored(words: Words) -> Iterator[str]:
    """Pruners that take no sparsity, where one is given."""
    given = _spellings(words)
    pruners = [name for name in words.groups.get("pruner", ()) if not _takes_sparsity(name)]
    if not pruners or not set(given) - {"0"}:
        return
    which = "it takes" if len(pruners) == 1 else "they take"
    told = f"sparsity={_listed(given)} is ignored by pruner={','.join(pruners)}: {which} none"
    several = len(dict.fromkeys(given))
    yield f"{told}, {_ONE_JOB}, {several} times" if several > 1 else told


def _repeated(words: Words) -> Iterator[str]:
    """Values of a sweep that are one sparsity in two spellings."""
    given = _spellings(words)
    for spelling in dict.fromkeys(given):
        if (times := given.count(spelling)) > 1:
            written = _listed(option for option in words.values["sparsity"] if _spelling(option) == spelling)
            yield f"sparsity={written} is one sparsity, {spelling}, {_ONE_JOB}, {times} times"


def _spellings(words: Words) -> list[str]:
    return [_spelling(option) for option in words.values.get("sparsity", ())]


def _spelling(option: Any) -> str:
    """The canonical spelling; of what refers to another value, its text."""
    try:
        return parse(option).given
    except ValueError:
        return str(option)


def _takes_sparsity(pruner: str) -> bool:
    return bool(declared(read_choice("pruner", pruner), "accepts"))


def _listed(options: Any) -> str:
    return shortened(",".join(map(str, options)))
