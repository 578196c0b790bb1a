"""The check that calibration prompts stay apart from the questions that the pruned model is asked afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.data.calibration.near_duplicates import WordIndex, near_duplicates


def leaked(prompts: Sequence[str], questions: Iterable[str]) -> str | None:
    """Return a prompt that holds a near-duplicate of one of the questions, or None if there is none."""
    found = near_duplicates(prompts, questions)
    if not found:
        return None
    return next((prompt for prompt in prompts if WordIndex([prompt]).holds(found[0])), found[0]).strip()


def check_held_out(calibration: str, prompts: Sequence[str], questions: Iterable[str], what: str) -> None:
    """Raise ValueError, naming the prompt, if one of the questions (``what`` they are, in words) is in the prompts."""
    if prompt := leaked(prompts, questions):
        raise ValueError(
            f"calibration={calibration} continues {what} ({prompt[-60:]!r}), so the evaluation would no longer be held "
            "out; remove that prompt from calibration.path, or choose other prompts"
        )
