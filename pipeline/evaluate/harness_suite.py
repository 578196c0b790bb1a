"""Options of the suites whose tasks lm-eval asks, beyond those of every suite, under the names that lm-eval uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.component import optional, speed_only
from pipeline.config.types import Positive
from pipeline.evaluate.gen_kwargs import draws, gen_kwargs_problems, generation
from pipeline.evaluate.suite import TaskSuite

AUTO = "auto"


@dataclass(frozen=True)
class HarnessSuite(TaskSuite):
    """A set of tasks for the lm-eval harness.

    ``gen_kwargs`` replace parameters of generation in the definitions, see `pipeline.evaluate.gen_kwargs`.
    ``system_instruction`` precedes every prompt, in the chat format as the system's turn. Few-shot examples are turns
    of the chat, or with ``fewshot_as_multiturn=False`` text of the only user's turn. With ``predict_only`` the answers
    are kept and not scored. Each generated item gets ``samples`` answers, drawn or the best beams; the first is scored
    as usual, and all of them by pass@k: `pipeline.evaluate.several`. A ``batch_size`` of ``auto`` is found on the dense
    model: `pipeline.evaluate.batch_size`.
    """

    batch_size: Positive | Literal["auto"] = speed_only(32)  # type: ignore[assignment]
    gen_kwargs: dict[str, Any] | str | None = optional(None)
    system_instruction: str | None = optional(None)
    fewshot_as_multiturn: bool | None = optional(None)
    predict_only: bool = optional(False)
    samples: Positive = optional(1)

    @property
    def generation(self) -> dict[str, Any]:
        """Parameters of generation that replace those of the definitions, by name."""
        return generation(self.gen_kwargs)

    def _beams(self) -> int:
        try:
            return int(self.generation.get("num_beams", 1))
        except ValueError:
            return 1

    @property
    def multiturn(self) -> bool:
        """Whether few-shot examples are turns of a chat; where not said, if prompts are in the chat format."""
        return self.chat_template if self.fewshot_as_multiturn is None else self.fewshot_as_multiturn

    @property
    def is_scored(self) -> bool:
        return not self.predict_only

    def identity(self) -> dict[str, Any]:
        """Return what results depend on. Spellings of one way of asking have one identity."""
        found = super().identity()
        for name in ("gen_kwargs", "fewshot_as_multiturn"):
            found.pop(name, None)
        if parameters := self.generation:
            found["gen_kwargs"] = parameters
        if draws(parameters):
            # The draws of a batch follow those of the batch before.
            found["batch_size"] = self.batch_size
        if self.multiturn != self.chat_template:
            found["fewshot_as_multiturn"] = self.multiturn
        return found

    def problems(self) -> list[str]:
        found = super().problems() + gen_kwargs_problems(self.gen_kwargs)
        if self.batch_size == AUTO and draws(self.generation):
            found.append("task.batch_size=auto: tokens that are drawn follow from the batches, so give a number")
        beams = self._beams()
        if self.samples > 1 and not draws(self.generation) and beams < self.samples:
            found.append(
                f"task.samples={self.samples} needs answers that differ: add task.gen_kwargs={{do_sample: true, "
                f"temperature: 1.0}}, or {{num_beams: {self.samples}}}"
            )
        if self.fewshot_as_multiturn and not self.chat_template:
            found.append(
                "task.fewshot_as_multiturn=true makes examples turns of a chat: add task.chat_template=true, or leave "
                "it at null"
            )
        if self.system_instruction is not None and not self.system_instruction.strip():
            found.append("task.system_instruction is blank; give a text, or null for none")
        return found
