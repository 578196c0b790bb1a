"""Ask a model the tasks of a suite: through the lm-eval harness, or for retrieval by the model's embeddings."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.evaluate import by_harness, harness
from pipeline.evaluate.results import Results
from pipeline.evaluate.retrieval import evaluate as by_embeddings
from pipeline.evaluate.suite import TaskSuite
from pipeline.evaluate.suites.retrieval import RetrievalSuite


def prepare(suite: TaskSuite, seed: int) -> None:
    """Find out at once whether the tasks can be had. Raises ValueError in plain words."""
    if isinstance(suite, RetrievalSuite):
        suite.prepare()
    else:
        harness.load_tasks(suite, seed)


def questions(suite: TaskSuite, seed: int) -> Iterator[str]:
    """Yield the text of every item that may be asked, without the examples before it."""
    if isinstance(suite, RetrievalSuite):
        for data in suite.datasets():
            yield from data.queries.values()
    else:
        yield from harness.questions(suite, seed)


def evaluate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: TaskSuite, seed: int) -> Results:
    """Ask the model every task of the suite, and score its answers."""
    if isinstance(suite, RetrievalSuite):
        return by_embeddings.evaluate(model, tokenizer, suite)
    return by_harness.evaluate(model, tokenizer, suite, seed)
