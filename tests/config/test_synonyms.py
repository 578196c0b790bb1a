"""Second spellings of keys: the same command line, unless they contradict the first."""

from __future__ import annotations

from pipeline.config.synonyms import contradictions, translated


def test_a_second_spelling_is_the_first():
    given = ["-m", "task.num_fewshot=0,5", "++task.num_fewshot=2", "seed=1"]
    assert translated(given) == ["-m", "task.shots=0,5", "++task.shots=2", "seed=1"]


def test_both_spellings_may_say_the_same_and_nothing_else():
    assert translated(["task.shots=5", "task.num_fewshot=5", "seed=1", "seed=1"]) == [
        "task.shots=5",
        "seed=1",
        "seed=1",
    ]
    assert contradictions(["task.shots=5", "task.num_fewshot=5"]) == contradictions(["task.num_fewshot=2"]) == []
    (problem,) = contradictions(["task.shots=5", "task.num_fewshot=2"])
    assert problem.startswith("task.num_fewshot=2 and task.shots=5 are two spellings of one key")
