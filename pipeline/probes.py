"""Twelve short prompts in three formats: multiple choice, arithmetic word problems, open-ended generation (tab3)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Probe:
    """A prompt; the name says its format and number."""

    name: str
    text: str


def _choice(question: str, *options: str) -> str:
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    return f"{question}\n{listed}\nGive the letter of the right answer and explain it in one sentence."


PROBES = (
    Probe("choice-1", _choice("Which of these is a mammal?", "Salmon", "Dolphin", "Penguin", "Lizard")),
    Probe(
        "choice-2", _choice("What do plants take from the air to grow?", "Helium", "Neon", "Carbon dioxide", "Argon")
    ),
    Probe("choice-3", _choice("Which planet is closest to the Sun?", "Mercury", "Saturn", "Earth", "Neptune")),
    Probe("choice-4", _choice("Which tool measures temperature?", "A ruler", "A scale", "A compass", "A thermometer")),
    Probe("arithmetic-1", "A baker fills 4 trays with 6 rolls each and sells 9 rolls. How many rolls are left?"),
    Probe(
        "arithmetic-2", "A train covers 60 miles in one hour. How many miles does it cover in three and a half hours?"
    ),
    Probe("arithmetic-3", "Mia has 15 marbles. She gives 3 to each of her 4 friends. How many marbles does she keep?"),
    Probe(
        "arithmetic-4", "A book costs 8 dollars and a pen costs 2 dollars. What do 3 books and 5 pens cost together?"
    ),
    Probe("open-1", "Describe a quiet morning by the sea in a few sentences."),
    Probe("open-2", "Explain to a child why the sky looks blue."),
    Probe("open-3", "Give three pieces of advice to someone who starts learning a new language."),
    Probe("open-4", "Write the beginning of a story about a lighthouse keeper who finds a letter."),
)


def encode(probe: Probe, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a probe, as a user turn of the chat template if the tokenizer has one, else as plain text."""
    if tokenizer.chat_template is None:
        return tokenizer(probe.text).input_ids
    turns = [{"role": "user", "content": probe.text}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False).input_ids
