"""The model's own continuations of prompts, since a model is used on the text that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.data.calibration.base import CalibrationSet, Positive
from pipeline.data.calibration.prompt_files import read_prompts, too_few
from pipeline.model.continuations import continued
from pipeline.model.trajectory import Trajectory
from pipeline.store.integrity import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Continuations(CalibrationSet):
    """Prompts, each continued by the dense model for at most ``length`` tokens, greedily.

    ``chat_template`` puts each into the model's chat format; without it the model continues the bare text, as in
    few-shot tasks.
    """

    length: Positive = 24
    packing: bool = False
    chat_template: bool = False

    generated: ClassVar[bool] = True

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        # Nothing is packed, and nothing is random.
        del identity["packing"], identity["seed"]
        return identity | {"prompts": digest(self.prompts())}

    def continued(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Trajectory:
        return continued(model, tokenizer, self.prompts(), self.length, self.chat_template)


@dataclass(frozen=True)
class Trajectories(Continuations):
    """``sequences`` prompts of the file at ``path``: see `read_prompts`.

    None stands for the built-in prompts: few-shot patterns and instructions by turns.
    """

    sequences: Positive = 56
    path: str | None = None

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        del identity["path"]
        return identity

    def documents(self) -> list[str]:
        return read_prompts(self.path)

    def prompts(self) -> list[str]:
        there = self.documents()
        if problem := too_few(len(there), self.sequences):
            raise ValueError(problem)
        return there[: self.sequences]
