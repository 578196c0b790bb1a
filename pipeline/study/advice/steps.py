"""Steps of the advice: the dense model, cheap measures of every setting, scores where they say most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.study.advice.answer import NAMES, Findings
from pipeline.study.advice.forecast import forecast
from pipeline.study.advice.jobs import Execute
from pipeline.study.advice.ladder import Setting, next_to_measure
from pipeline.study.advice.question import Question
from pipeline.study.advice.study import DENSE, Study


class NoAdvice(Exception):
    """Raised if nothing can be advised; the message says why, and what would help."""


def investigate(question: Question, execute: Execute) -> tuple[Findings, dict[Setting, str], Path]:
    """Run the missing jobs. Returns the findings, why some settings failed, and the outputs folder.

    Raises NoAdvice if the dense model has no scores, or is not clearly above chance.
    """
    study = Study(question, execute)
    _say(f"1 of 3: evaluating {study.model}, dense")
    study.evaluate([(DENSE, "0")])
    _check_signal(question, study)
    count = sum(len(ladder) for ladder in question.ladders.values())
    _say(f"2 of 3: measuring {count} settings of {len(question.ladders)} pruners, without evaluating them")
    study.measure()
    _say(f"3 of 3: evaluating near the threshold, at most {question.evaluations} settings per pruner")
    findings = _gathered(question, study)
    while chosen := _next(question, findings):
        _say("  " + ", ".join(f"{pruner} at {sparsity}" for pruner, sparsity in chosen))
        study.evaluate(chosen)
        findings = _gathered(question, study)
    return replace(findings, halves=study.halves(), divided=study.divided), study.failures(), study.store.root


def _gathered(question: Question, study: Study) -> Findings:
    seen = forecast(study.store.root, study.choices, study.jobs)
    rungs = {
        pruner: [rung._replace(divergence=seen.divergence.get((pruner, rung.sparsity))) for rung in study.rungs(pruner)]
        for pruner in question.ladders
    }
    return Findings(
        model=study.model,
        keep=question.keep,
        kinds=question.kinds,
        rungs=rungs,
        units=question.units,
        measured=study.measured(),
        predicted=seen.kept,
        parameters=study.parameters(),
        settings=study.settings,
        basis=seen.basis,
    )


def _next(question: Question, findings: Findings) -> list[Setting]:
    """Return the next setting of every pruner whose threshold is not found yet."""
    chosen = []
    for pruner, rungs in findings.ladders().items():
        place = next_to_measure(rungs, question.keep, question.evaluations)
        if place is not None:
            chosen.append((pruner, rungs[place].sparsity))
    return chosen


def _check_signal(question: Question, study: Study) -> None:
    dense = study.dense()
    for kind in question.kinds:
        name = NAMES[kind]
        if kind not in dense:
            raise NoAdvice(f"there are no dense scores for {name}: {study.why_not_dense()}")
        score = dense[kind]
        if not score.has_signal:
            raise NoAdvice(
                f"the dense model itself is not clearly above chance in {name} ({score.value:.2f}, chance is "
                f"{score.chance:.2f}), so there is nothing for pruning to lose; give another task=..., or more items "
                "with task.limit=..."
            )


def _say(text: str) -> None:
    print(text, flush=True)
