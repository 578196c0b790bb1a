"""The model's own continuations of prompts: the text on which a model is used is the text that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.calibration.base import CalibrationSet, Positive
from pipeline.capture import Trajectory
from pipeline.continuations import continued
from pipeline.integrity import digest
from pipeline.json_lines import rows_of_lines

_OWN = Path(__file__).with_name("prompts.txt")


@dataclass(frozen=True)
class Trajectories(CalibrationSet):
    """``sequences`` prompts, each continued by the dense model for at most ``length`` tokens, greedily.

    ``path`` is a .txt file with a prompt a line, in which ``\\n`` stands for a line break, or a .jsonl file with a
    ``text`` a line; if it is None, built-in ones: few-shot patterns and instructions by turns. ``chat_template`` puts
    each into the model's chat format; without it the model goes on from the bare text, as few-shot tasks have it do.
    """

    sequences: Positive = 56
    length: Positive = 24
    packing: bool = False
    path: str | None = None
    chat_template: bool = False

    generated: ClassVar[bool] = True

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        del identity["path"], identity["packing"]
        return identity | {"prompts": digest(self.prompts())}

    def documents(self) -> list[str]:
        path = _OWN if self.path is None else Path(self.path).expanduser()
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            return [str(row["text"]) for _, row in rows_of_lines(StringIO(text), path, '{"text": "..."}')]
        return [line.replace("\\n", "\n") for line in text.split("\n") if line.strip()]

    def prompts(self) -> list[str]:
        """Those that are continued. Raises ValueError if there are too few."""
        there = self.documents()
        if len(there) < self.sequences:
            raise ValueError(
                f"calibration {self.name} has {len(there)} prompts, but calibration.sequences={self.sequences}; "
                "lower that, or give more prompts in calibration.path"
            )
        return there[: self.sequences]

    def continued(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Trajectory:
        return continued(model, tokenizer, self.prompts(), self.length, self.chat_template)
