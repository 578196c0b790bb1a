"""The options protocol (section 7.2): multiple-choice prompts at the first decision step, where an option is chosen."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from pipeline.config.probes import LETTERS, Probe, encode
from pipeline.evaluate.harness_suite import HarnessSuite
from pipeline.evaluate.suite import MULTIPLE_CHOICE, TaskSuite
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_values
from pipeline.model.positions import Positions
from pipeline.model.trajectory import KEY

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
_TENSORS, _FACTS = "options.safetensors", "options.json"
# Beginning of the answer to a probe: the next token is the letter of an option.
_OPENING = "Answer:"
PROBE = "probe"
# Questions of a pass.
BATCH = 8


@dataclass(frozen=True)
class Question:
    """A multiple-choice prompt up to the decision: its token ids, and the first token of each option.

    ``origin`` is the task that it comes from, or "probe". ``gold`` is the index of the right option, -1 if unknown.
    """

    name: str
    origin: str
    context: list[int]
    options: list[int]
    texts: list[str]
    gold: int


def question_of(
    name: str, origin: str, context: Sequence[int], answers: Sequence[Sequence[int]], texts: Sequence[str], gold: int
) -> Question | None:
    """Build the question at the first step where the answers (token ids after the context) differ.

    Returns None if that step does not distinguish all answers, and for a single answer.
    Tokens that all answers begin with, such as a separate space, belong to the context.
    """
    shared = 0
    while all(len(answer) > shared + 1 for answer in answers) and len({answer[shared] for answer in answers}) == 1:
        shared += 1
    options = [answer[shared] for answer in answers if len(answer) > shared]
    if len(set(options)) < max(len(answers), 2):
        return None
    return Question(name, origin, [*context, *answers[0][:shared]], options, list(texts), gold)


def probe_questions(probes: Sequence[Probe], tokenizer: PreTrainedTokenizerBase) -> list[Question]:
    """Return the questions of the probes that have options, asked for a letter."""
    questions = []
    for probe in probes:
        if not probe.options:
            continue
        texts = [f" {letter}" for letter in LETTERS[: len(probe.options)]]
        whole = [encode(probe, tokenizer, opening=_OPENING + text) for text in texts]
        common = next((at for at, column in enumerate(zip(*whole, strict=False)) if len(set(column)) > 1), 0)
        answers = [row[common:] for row in whole]
        gold = -1 if probe.answer is None else probe.answer
        questions.append(question_of(probe.name, PROBE, whole[0][:common], answers, texts, gold))
    return _asked(questions)


def _asked(questions: Sequence[Question | None]) -> list[Question]:
    """Return the questions whose first step decides; log how many are left out."""
    asked = [question for question in questions if question is not None]
    if len(asked) < len(questions):
        log.info(
            "  %d of %d questions left out: their options start with the same token",
            len(questions) - len(asked),
            len(questions),
        )
    return asked


def task_questions(
    suite: TaskSuite, items: int, seed: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[Question]:
    """Return the first ``items`` questions of each multiple-choice task, with the harness's own prompts."""
    if not isinstance(suite, HarnessSuite) or not items:
        return []
    # Deferred: a job that finds its results asks no task.
    from pipeline.evaluate.by_harness import build_requests
    from pipeline.evaluate.harness import load_tasks, options_of, rows_of
    from pipeline.evaluate.language_model import InMemoryLM

    loaded = load_tasks(suite, seed)
    chosen = [row for row in rows_of(suite, loaded) if row.kind == MULTIPLE_CHOICE]
    harness = InMemoryLM(model, tokenizer, 1)
    questions = []
    for row in chosen:
        # The first task of a group stands for all of them.
        task = loaded.tasks[row.leaves[0]]
        build_requests(task, suite, items, harness)
        by_item: dict[int, list[tuple[str, str]]] = {}
        for request in task.instances:
            by_item.setdefault(request.doc_id, []).append(request.args)
        for item, (_, doc) in zip(by_item, task.doc_iterator(limit=items), strict=True):
            # Requests for the options without the prompt may follow.
            pairs = by_item[item][: len(options_of(task, doc))]
            encoded = [harness.encode_pair(*pair) for pair in pairs]
            gold = _gold(task, doc)
            questions.append(
                question_of(
                    name=f"{row.task}-{item + 1}",
                    origin=row.task,
                    # Cut from the left, as the harness does, to leave room for the longest answer.
                    context=encoded[0][0][-harness.room(max((answer for _, answer in encoded), key=len)) :],
                    answers=[continuation for _, continuation in encoded],
                    texts=[text for _, text in pairs],
                    gold=gold,
                )
            )
    return _asked(questions)


def _gold(task: Task, doc: Any) -> int:
    """Return the index of the right option, which tasks define as a number or as the option itself; -1 if unknown."""
    target = task.doc_to_target(doc)
    if isinstance(target, int):
        return target
    options = task.doc_to_choice(doc)
    return options.index(target) if target in options else -1


@torch.inference_mode()
def decision_states(model: PreTrainedModel, questions: Sequence[Question]) -> torch.Tensor:
    """Compute the final hidden states (K, D) at the last token of each context, float32 at least, on the processor.

    Raises ValueError for a context that is longer than the model's positions, and for states that are not finite.
    """
    decoder = Decoder(model)
    longest = max((len(question.context) for question in questions), default=0)
    if decoder.positions is not None and longest > decoder.positions:
        raise ValueError(
            f"a question has {longest} tokens, but the model has {decoder.positions} positions; give shorter probes"
        )
    found: list[torch.Tensor | None] = [None] * len(questions)
    for batch in _batches(questions, Positions.of(model)):
        width = max(len(questions[at].context) for at in batch)
        rows = [questions[at].context + [0] * (width - len(questions[at].context)) for at in batch]
        states = decoder.final_states(torch.tensor(rows))
        for at, state in zip(batch, states, strict=True):
            last = state[len(questions[at].context) - 1]
            found[at] = last.to(torch.promote_types(last.dtype, torch.float32)).cpu()
    if not questions:
        return torch.empty(0, 0)
    states = torch.stack([state for state in found if state is not None])
    check_values(states, "states where options are chosen", KEY)
    return states


def _batches(questions: Sequence[Question], positions: Positions) -> Iterator[list[int]]:
    """Yield batches of question indices, the longest questions first: a batch then has little padding."""
    order = sorted(range(len(questions)), key=lambda at: -len(questions[at].context))
    for run in positions.runs([len(questions[at].context) for at in order], BATCH):
        yield order[run]


def save_options(questions: Sequence[Question], states: torch.Tensor, folder: Path) -> None:
    (folder / _FACTS).write_text(
        json.dumps([asdict(question) for question in questions], ensure_ascii=False) + "\n", encoding="utf-8"
    )
    save_file({"states": states}, folder / _TENSORS)


def load_options(folder: Path) -> tuple[list[Question], torch.Tensor]:
    questions = [Question(**row) for row in json.loads((folder / _FACTS).read_text(encoding="utf-8"))]
    return questions, load_file(folder / _TENSORS)["states"]
