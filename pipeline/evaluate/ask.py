"""Evaluation of a model on a task suite: through the lm-eval harness, or for retrieval by the model's embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from pipeline.evaluate.harness_suite import HarnessSuite
from pipeline.evaluate.results import Results
from pipeline.evaluate.suites.retrieval import RetrievalSuite

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Suite = HarnessSuite | RetrievalSuite


def prepare(suite: Suite, seed: int) -> None:
    """Check at once that the tasks can be loaded. Raises ValueError in plain words."""
    if isinstance(suite, RetrievalSuite):
        suite.prepare()
    else:
        # Deferred, as below: a job that finds its results asks no task.
        from pipeline.evaluate import harness

        harness.load_tasks(suite, seed)


def check_chat_template(suite: Suite, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise ValueError if the chat template of a model, called ``name``, cannot format the prompts.

    It may be missing, or take no system's turn, which lm-eval would then leave out.
    """
    if not suite.chat_template:
        return
    if not tokenizer.chat_template:
        raise ValueError(f"task.chat_template=true, but the tokenizer of {name} has no chat template; set it to false")
    instruction = suite.system_instruction if isinstance(suite, HarnessSuite) else None
    if instruction is None:
        return
    turns = [{"role": "system", "content": instruction}, {"role": "user", "content": "?"}]
    try:
        shown = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except TemplateError:
        shown = ""
    if instruction.strip() not in shown:
        raise ValueError(
            f"task.system_instruction: the chat template of {name} takes no system's turn; leave it out, or give "
            "task.chat_template=false"
        )


def questions(suite: Suite, seed: int) -> Iterator[str]:
    """Yield the text of every item that may be asked, without few-shot examples."""
    if isinstance(suite, RetrievalSuite):
        for data in suite.datasets():
            yield from data.queries.values()
    else:
        from pipeline.evaluate import harness

        yield from harness.questions(suite, seed)


def evaluate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: Suite, seed: int) -> Results:
    """Evaluate the model on every task of the suite."""
    if isinstance(suite, RetrievalSuite):
        from pipeline.evaluate.retrieval import evaluate as by_embeddings

        return by_embeddings.evaluate(model, tokenizer, suite)
    from pipeline.evaluate import by_harness

    return by_harness.evaluate(model, tokenizer, suite, seed)
