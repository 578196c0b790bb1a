"""Notes on what a valid command line may not mean as it says: shown before the jobs start, without stopping them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.check.words import Words, read_words, shortened
from pipeline.config.signature import takes_sparsity
from pipeline.config.sparsity import parse
from pipeline.data.matched.suite import HALVES, relatives_of

_ONE_JOB = "so the jobs that differ only in it are the same job"


def notes(arguments: Sequence[str], multirun: bool) -> list[str]:
    """Return a sentence for each thing that a command line without problems asks for and does not get."""
    words = read_words(arguments, multirun)
    return [*_ignored(words), *_repeated(words), *_related(words)]


def _ignored(words: Words) -> Iterator[str]:
    """Yield a note on pruners that take no sparsity, if one is given."""
    given = _spellings(words)
    pruners = [name for name in words.groups.get("pruner", ()) if not takes_sparsity(name)]
    if not pruners or not set(given) - {"0"}:
        return
    which = "it takes" if len(pruners) == 1 else "they take"
    told = f"sparsity={_listed(given)} is ignored by pruner={','.join(pruners)}: {which} no sparsity"
    several = len(dict.fromkeys(given))
    yield f"{told}, {_ONE_JOB}, {several} times" if several > 1 else told


def _repeated(words: Words) -> Iterator[str]:
    """Yield a note for each sparsity that a sweep lists more than once, such as in two spellings."""
    given = _spellings(words)
    for spelling in dict.fromkeys(given):
        if (times := given.count(spelling)) > 1:
            written = _listed(option for option in words.values["sparsity"] if _spelling(option) == spelling)
            yield f"sparsity={written} is one sparsity, {spelling}, {_ONE_JOB}, {times} times"


def _related(words: Words) -> Iterator[str]:
    """Yield a note where pruners choose on families of the suite and are judged on others that are their relatives."""
    pairs = [
        (chosen, asked)
        for chosen in words.values.get("calibration.families", ())
        for asked in words.values.get("task.families", ())
        if isinstance(chosen, list) and isinstance(asked, list) and not set(chosen) & set(asked)
    ]
    related = {family: None for chosen, asked in pairs for family in relatives_of(chosen, asked)}
    if related:
        halves = " and ".join(f"[{','.join(half)}]" for half in HALVES)
        yield (
            f"calibration.families and task.families differ, but {_listed(related)} have relatives among those that "
            f"are asked, with the same verbs, words or templates; halves without relatives: {halves}"
        )


def _spellings(words: Words) -> list[str]:
    return [_spelling(option) for option in words.values.get("sparsity", ())]


def _spelling(option: Any) -> str:
    """Return the canonical spelling of a sparsity, or the text of a reference to another value."""
    try:
        return parse(option).given
    except ValueError:
        return str(option)


def _listed(options: Any) -> str:
    return shortened(",".join(map(str, options)))
