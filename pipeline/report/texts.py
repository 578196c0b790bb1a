"""Generated texts of dense and pruned models side by side, and where each one leaves the dense text."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.tables.read import Tables
from pipeline.tables.replicates import first_replicates
from pipeline.tables.variants import DENSE, rows_of, variants_of

ABSENT = -1  # the token where a text has ended


@dataclass(frozen=True)
class Text:
    """One continuation: the part it shares with the dense one, its first different token, and the rest.

    Attributes:
        label: "dense" or the variant's label.
        common, first, rest: the text in three parts; `first` is empty where the text simply ends.
        step: the step of `first`, counted from 0; None where the text never leaves the dense one.
    """

    label: str
    common: str
    first: str = ""
    rest: str = ""
    step: int | None = None

    @property
    def mark(self) -> str:
        """Text of the marker."""
        return f"step {self.step}" if self.first else f"step {self.step}: ends here"


@dataclass(frozen=True)
class Prompt:
    """A prompt and its continuations, dense first."""

    name: str
    format: str
    text: str
    dense: str
    pruned: tuple[Text, ...]


def side_by_side(tables: Tables) -> list[Prompt]:
    """Return every prompt of the trajectories with all its texts, in the order of the prompts table."""
    tokens = first_replicates(tables.trajectories)
    if tokens.empty:
        return []
    tokens = tokens[tokens["pruner"] != DENSE].sort_values("step", kind="stable")
    known = tables.prompts.drop_duplicates("prompt").set_index("prompt") if not tables.prompts.empty else pd.DataFrame()
    names = [name for name in known.index if (tokens["prompt"] == name).any()]
    names += sorted(set(tokens["prompt"]) - set(names))
    return [_prompt(name, known, tokens[tokens["prompt"] == name]) for name in names]


def _prompt(name: str, known: pd.DataFrame, tokens: pd.DataFrame) -> Prompt:
    form, text = (str(known.loc[name, column]) if name in known.index else "" for column in ("format", "text"))
    texts = []
    dense = ""
    for variant in variants_of(tokens):
        own = rows_of(tokens, [variant])
        dense = max(dense, "".join(own["dense_text"]), key=len)
        texts.append(_text(variant.label, own))
    return Prompt(name, form, text, dense, tuple(texts))


def _text(label: str, tokens: pd.DataFrame) -> Text:
    """Split a continuation into its three parts, from its tokens in the order of their steps."""
    pieces = [str(piece) for piece in tokens["pruned_text"]]
    differs = (tokens["dense_token"] != tokens["pruned_token"]).to_numpy()
    if not differs.any():
        return Text(label, "".join(pieces))
    place = int(differs.argmax())
    ended = tokens["pruned_token"].iloc[place] == ABSENT
    # A token may have no visible text of its own, such as one byte of a character.
    first = "" if ended else pieces[place] or "␣"
    step = int(tokens["step"].iloc[place])
    return Text(label, "".join(pieces[:place]), first, "".join(pieces[place + 1 :]), step)
