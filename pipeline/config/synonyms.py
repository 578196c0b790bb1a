"""Second spellings of configuration keys, for people who know them from elsewhere. The configuration has the first."""

from __future__ import annotations

from collections.abc import Sequence

# By second spelling. lm-eval says num_fewshot.
SYNONYMS = {"task.num_fewshot": "task.shots"}


def translated(arguments: Sequence[str]) -> list[str]:
    """Return a command line in the first spellings: results are the same, and found, under either.

    What is then said twice is said once.
    """
    found: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        name = key.lstrip("+")
        if equals and name in SYNONYMS:
            argument = f"{key.removesuffix(name)}{SYNONYMS[name]}={value}"
        if argument not in found or name not in (*SYNONYMS, *SYNONYMS.values()):
            found.append(argument)
    return found


def contradictions(arguments: Sequence[str]) -> list[str]:
    """Return a sentence for each key that has one value in its first spelling and another in its second."""
    given = dict(argument.lstrip("+").split("=", 1) for argument in arguments if "=" in argument)
    return [
        f"{second}={given[second]} and {first}={given[first]} are two spellings of one key; give one of them"
        for second, first in SYNONYMS.items()
        if second in given and first in given and given[first] != given[second]
    ]
