"""The check that calibration prompts stay apart from the questions that the pruned model is asked afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def leaked(prompts: Sequence[str], questions: Iterable[str]) -> str | None:
    """Return a prompt in which one of the questions begins a line, or None if there is none."""
    lines = ["\n" + _plain(prompt) for prompt in prompts]
    for question in questions:
        if (plain := _plain(question)) and (found := next((x for x in lines if "\n" + plain in x), None)):
            return found.strip()
    return None


def check_held_out(calibration: str, prompts: Sequence[str], questions: Iterable[str], what: str) -> None:
    """Raise ValueError, naming the prompt, if one of the questions (``what`` they are, in words) is in the prompts."""
    if prompt := leaked(prompts, questions):
        raise ValueError(
            f"calibration={calibration} continues {what} ({prompt[-60:]!r}), so the evaluation would no longer be held "
            "out; remove that prompt from calibration.path, or choose other prompts"
        )


def _plain(text: str) -> str:
    return "\n".join(" ".join(line.split()).casefold() for line in text.strip().splitlines())
