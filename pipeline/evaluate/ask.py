"""Evaluation of a model on a task suite: through the lm-eval harness, or for retrieval by the model's embeddings."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.evaluate import by_harness, harness
from pipeline.evaluate.results import Results
from pipeline.evaluate.retrieval import evaluate as by_embeddings
from pipeline.evaluate.suite import TaskSuite
from pipeline.evaluate.suites.retrieval import RetrievalSuite


def prepare(suite: TaskSuite, seed: int) -> None:
    """Check at once that the tasks can be loaded. Raises ValueError in plain words."""
    if isinstance(suite, RetrievalSuite):
        suite.prepare()
    else:
        harness.load_tasks(suite, seed)


def check_chat_template(suite: TaskSuite, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise ValueError if prompts are to be in the chat format of a model, called ``name``, that has none."""
    if suite.chat_template and not tokenizer.chat_template:
        raise ValueError(f"task.chat_template=true, but the tokenizer of {name} has no chat template; set it to false")


def questions(suite: TaskSuite, seed: int) -> Iterator[str]:
    """Yield the text of every item that may be asked, without few-shot examples."""
    if isinstance(suite, RetrievalSuite):
        for data in suite.datasets():
            yield from data.queries.values()
    else:
        yield from harness.questions(suite, seed)


def evaluate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: TaskSuite, seed: int) -> Results:
    """Evaluate the model on every task of the suite."""
    if isinstance(suite, RetrievalSuite):
        return by_embeddings.evaluate(model, tokenizer, suite)
    return by_harness.evaluate(model, tokenizer, suite, seed)
