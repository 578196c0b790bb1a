"""Check of the sweeper on the command line: every combination, or trials that a plugin such as Optuna chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.check.plugins import GRIDS, SAMPLER, SWEEPER, plugin_choices, plugin_problems
from pipeline.config.choices import nearest
from pipeline.config.objective import LARGER_IS_BETTER
from pipeline.config.schema import OBJECTIVE

NODE = "hydra.sweeper."
DEFAULT = "grid"
_DIRECTION = f"{NODE}direction"


def sweeper_of(overrides: Sequence[str]) -> str:
    """Return the name of the sweeper that a command line chooses."""
    return _given(overrides).get(SWEEPER, DEFAULT)


def chooses_trials(overrides: Sequence[str]) -> bool:
    """Return whether the sweeper chooses trials by their results, so that not every combination is run."""
    return sweeper_of(overrides) not in GRIDS


def sweeper_problems(overrides: Sequence[str], multirun: bool) -> list[str]:
    """Return a sentence with the way out for each problem of the sweeper, its keys, and the objective that it needs."""
    given = _given(overrides)
    sweeper, known = given.get(SWEEPER, DEFAULT), [DEFAULT, *plugin_choices(SWEEPER)]
    if sweeper not in known:
        return [f"{SWEEPER}={sweeper} is not installed; {nearest(sweeper, known)}"]
    settings = {key: value for key, value in given.items() if key.startswith(NODE) or key == SAMPLER}
    if sweeper in GRIDS:
        return [
            f"{key} is not a key of {SWEEPER}={sweeper}: list the values of a sweep, separated by commas"
            for key in settings
        ]
    found = plugin_problems(SWEEPER, sweeper, settings)
    if not multirun:
        found.append(f"{SWEEPER}={sweeper} runs several jobs: add -m")
    return found + _objective(sweeper, given)


def _objective(sweeper: str, given: Mapping[str, str]) -> list[str]:
    """Check that there is an objective, and that the sweeper looks for its better end."""
    names = [
        name.strip() for name in given.get(OBJECTIVE, "").strip("[]").split(",") if name.strip() not in ("", "null")
    ]
    if not names:
        listed = ", ".join(LARGER_IS_BETTER)
        return [f"{SWEEPER}={sweeper} needs a number to look for: give {OBJECTIVE}=NAME, one of {listed}"]
    directions = [word.strip() for word in given.get(_DIRECTION, "minimize").strip("[]").split(",")]
    wanted = ["maximize" if LARGER_IS_BETTER.get(name, True) else "minimize" for name in names]
    if directions != wanted and all(name in LARGER_IS_BETTER for name in names):
        way = f"[{','.join(wanted)}]" if len(wanted) > 1 else wanted[0]
        return [f"{OBJECTIVE}={','.join(names)} is best at its {_END[wanted[0]]}: give {_DIRECTION}={way}"]
    return []


_END = {"maximize": "largest", "minimize": "smallest"}


def _given(overrides: Sequence[str]) -> dict[str, str]:
    return dict(override.lstrip("+").partition("=")[::2] for override in overrides)
