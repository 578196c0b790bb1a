"""Probe prompts: the built-in twelve in three formats (tab3), or any others from a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.common.regular_files import check_regular

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LETTERS = "ABCDEFGHIJ"
# Every prompt is captured token by token: a larger file was not meant as prompts.
_MOST_BYTES = 2**26
_KEYS = {"text", "name", "format", "steps", "options", "answer"}


@dataclass(frozen=True)
class Probe:
    """A prompt.

    ``steps`` bounds how far it is continued (None: as far as the capture goes). With ``options`` it is a
    multiple-choice question, whose options are listed below its text by letter; ``answer`` is the index of the right
    one, None if it is not known.
    """

    name: str
    text: str
    format: str
    steps: int | None = None
    options: tuple[str, ...] = ()
    answer: int | None = None

    @property
    def prompt(self) -> str:
        """Text that the model is asked, options included."""
        if not self.options:
            return self.text
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False))
        return f"{self.text}\n{listed}\nGive the letter of the right answer and explain it in one sentence."


def _choice(number: int, answer: str, text: str, *options: str) -> Probe:
    return Probe(f"choice-{number}", text, "choice", options=options, answer=LETTERS.index(answer))


PROBES = (
    _choice(1, "B", "Which of these is a mammal?", "Salmon", "Dolphin", "Penguin", "Lizard"),
    _choice(2, "C", "What do plants take from the air to grow?", "Helium", "Neon", "Carbon dioxide", "Argon"),
    _choice(3, "A", "Which planet is closest to the Sun?", "Mercury", "Saturn", "Earth", "Neptune"),
    _choice(4, "D", "Which tool measures temperature?", "A ruler", "A scale", "A compass", "A thermometer"),
    Probe(
        "arithmetic-1",
        "A baker fills 4 trays with 6 rolls each and sells 9 rolls. How many rolls are left?",
        "arithmetic",
    ),
    Probe(
        "arithmetic-2",
        "A train covers 60 miles in one hour. How many miles does it cover in three and a half hours?",
        "arithmetic",
    ),
    Probe(
        "arithmetic-3",
        "Mia has 15 marbles. She gives 3 to each of her 4 friends. How many marbles does she keep?",
        "arithmetic",
    ),
    Probe(
        "arithmetic-4",
        "A book costs 8 dollars and a pen costs 2 dollars. What do 3 books and 5 pens cost together?",
        "arithmetic",
    ),
    Probe("open-1", "Describe a quiet morning by the sea in a few sentences.", "open"),
    Probe("open-2", "Explain to a child why the sky looks blue.", "open"),
    Probe("open-3", "Give three pieces of advice to someone who starts learning a new language.", "open"),
    Probe("open-4", "Write the beginning of a story about a lighthouse keeper who finds a letter.", "open"),
)


def encode(probe: Probe, tokenizer: PreTrainedTokenizerBase, opening: str = "") -> list[int]:
    """Return the token ids of a probe, as a user turn if the tokenizer has a chat template, else as plain text.

    ``opening`` is the beginning of the answer, which the model continues.
    """
    if tokenizer.chat_template is None:
        return tokenizer(f"{probe.prompt}\n{opening}" if opening else probe.prompt).input_ids
    turns = [{"role": "user", "content": probe.prompt}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return tokenizer(text + opening, add_special_tokens=False).input_ids


def read_probes(path: str | Path | None) -> tuple[Probe, ...]:
    """Read the probes of a file; return the built-in ones if ``path`` is None.

    A ``.txt`` file has one prompt per line. A ``.jsonl`` file has one object per line: ``text``, and optionally
    ``name``, ``format`` (any word), ``steps`` (most generated tokens), ``options`` (2 to 10 strings) and ``answer``
    (a letter). Raises ValueError, naming the line, for anything else.
    """
    if path is None:
        return PROBES
    try:
        file = Path(path).expanduser()
        check_regular(file)
        if (size := file.stat().st_size) > _MOST_BYTES:
            raise ValueError(f"probes={path} has {size} bytes; give a file of prompts of at most {_MOST_BYTES} bytes")
        # Not splitlines, which also splits at characters that may stand inside a JSON string.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        raise ValueError(f"probes={path} cannot be read as text ({error}); give a .txt or .jsonl file") from error
    if file.suffix not in (".txt", ".jsonl"):
        raise ValueError(
            f"probes={path}: give a .txt file with one prompt per line, or a .jsonl file with one object per line"
        )
    read = _of_json if file.suffix == ".jsonl" else _of_text
    probes: dict[str, Probe] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"probes={path}, line {number}"
            probe = read(line, number, where)
            if probe.name in probes:
                raise ValueError(f"{where}: an earlier prompt is called {probe.name!r} too; give each its own name")
            probes[probe.name] = probe
    if not probes:
        raise ValueError(f"probes={path} contains no prompt; write one per line")
    return tuple(probes.values())


def _of_text(line: str, number: int, where: str) -> Probe:
    return Probe(f"prompt-{number}", line.strip(), "open")


def _of_json(line: str, number: int, where: str) -> Probe:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{where}: invalid JSON ({error}); write an object such as {{"text": "a prompt"}}') from error
    return _of_row(row, number, where)


def probes_of(prompts: Iterable[str | Mapping[str, Any] | Probe]) -> tuple[Probe, ...]:
    """Return the probes that texts, or mappings as the lines of a .jsonl file are, stand for.

    Raises ValueError, naming the prompt by its number, for anything else, and for two prompts of one name.
    """
    if isinstance(prompts, str):
        raise ValueError("prompts should be a list of texts, not one text")
    probes: dict[str, Probe] = {}
    for number, given in enumerate(prompts, 1):
        row: Any = {"text": given} if isinstance(given, str) else given
        row = dict(row) if isinstance(row, Mapping) else row
        probe = row if isinstance(row, Probe) else _of_row(row, number, f"prompt {number}")
        if probe.name in probes:
            raise ValueError(f"prompt {number}: an earlier prompt is called {probe.name!r} too; give each its own name")
        probes[probe.name] = probe
    if not probes:
        raise ValueError("prompts is empty; give at least one")
    return tuple(probes.values())


def _of_row(row: Any, number: int, where: str) -> Probe:
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
        raise ValueError(f'{where}: give an object whose "text" is the prompt')
    if unknown := sorted(row.keys() - _KEYS):
        raise ValueError(f"{where}: unknown key {', '.join(unknown)}; choose from {', '.join(sorted(_KEYS))}")
    options, steps = row.get("options", []), row.get("steps")
    if (
        not isinstance(options, list)
        or not all(isinstance(option, str) for option in options)
        or (options and not 2 <= len(options) <= len(LETTERS))
    ):
        raise ValueError(f"{where}: options should be a list of 2 to 10 strings")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise ValueError(f"{where}: steps={steps} should be a whole number of at least 1")
    for key in ("name", "format"):
        if not isinstance(row.get(key, ""), str):
            raise ValueError(f"{where}: {key} should be a string")
    return Probe(
        name=row.get("name") or f"prompt-{number}",
        text=row["text"],
        format=row.get("format") or ("choice" if options else "open"),
        steps=steps,
        options=tuple(options),
        answer=_answer(row.get("answer"), options, where),
    )


def _answer(answer: Any, options: Sequence[str], where: str) -> int | None:
    if answer is None:
        return None
    letters = LETTERS[: len(options)]
    if not isinstance(answer, str) or len(answer) != 1 or answer not in letters:
        raise ValueError(
            f"{where}: answer={answer} should be one of the letters {', '.join(letters) or '(no options)'}"
        )
    return letters.index(answer)
