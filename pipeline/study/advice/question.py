"""The question put to the advice: its own words of the command line, and the words passed on to every job."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipeline.check.command_line import problems
from pipeline.check.hydra_settings import is_hydras
from pipeline.check.launcher import launcher_problems
from pipeline.check.model import layers_of, writes_text
from pipeline.check.words import read_words, shortened
from pipeline.config.choices import choices_of, nearest, read_choice
from pipeline.config.defaults_lists import defaults_problem
from pipeline.config.search_path import CONF, searched
from pipeline.config.signature import declared
from pipeline.config.synonyms import contradictions, translated
from pipeline.evaluate.suite import GENERATIVE, MULTIPLE_CHOICE, RETRIEVAL
from pipeline.prune.settings import Settings
from pipeline.run.compose import resolve
from pipeline.study.advice.ladder import SHARES, WEIGHTS, unit_counts

OWN = ("keep", "tasks", "pruners", "evaluations")
# The kinds of task that each word asks for.
TASKS = {
    "generative": (GENERATIVE,),
    "choice": (MULTIPLE_CHOICE,),
    "retrieval": (RETRIEVAL,),
    "all": (GENERATIVE, MULTIPLE_CHOICE, RETRIEVAL),
}
PRUNERS = ("attn_drop", "divergence_estimate", "mlp_drop", "shortgpt", "wanda", "perplexity_blocks")
# Keys that the advice sets itself, and what to give instead.
_DECIDED = {
    "pruner": "give pruners=[...]",
    "sparsity": "each pruner is tried at increasing sparsity",
    "stages": "it runs the stages that it needs",
    "capture.protocols": "it captures what it needs",
    "experiment": "an experiment defines its own pruners and sparsities; run it with pipeline.main",
    "export.path": "export the recommended setting by running it with export.path=DIR",
    "task.predict_only": "it compares scores",
    "figures.select": "draw them with python -m pipeline.plot",
}
# Pruners of one criterion are comparable only with the same calibration text; some need text the model itself wrote.
_CALIBRATION = "calibration=trajectories"
PROTOCOLS = "capture.protocols=[teacher_forced,free_running]"
EVALUATION, MEASURES = "stages=[prune,evaluate]", "stages=[prune,capture,measure]"
# Number of units in a block, by the kind of unit that a pruner removes.
_UNITS = {"block": 1, "attention": 1, "mlp": 1, "sublayer": 2}


@dataclass(frozen=True)
class Question:
    """How far pruners can go before one of the ``kinds`` of task retains less than ``keep``.

    ``given`` are the words for every job except the task suite, ``suites`` the suites with these kinds of task, and
    ``ladders`` the sparsities of each pruner in ascending order, of which at most ``evaluations`` are evaluated.
    """

    keep: float
    kinds: tuple[str, ...]
    suites: tuple[str, ...]
    evaluations: int
    given: tuple[str, ...]
    ladders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def words(self, suite: str, pruners: Sequence[str], sparsities: Sequence[str], stages: str) -> list[str]:
        """Return the command line of ``pipeline.main`` that runs all these settings."""
        grid = [f"pruner={','.join(pruners)}", f"sparsity={','.join(sparsities)}"]
        return ["-m", *searched(), *self.given, *self.suite_words(suite), PROTOCOLS, stages, *grid]

    def suite_words(self, suite: str) -> list[str]:
        """Return the words that choose a suite and, where it can be restricted, the kinds of task asked for."""
        there = read_choice("task", suite).get("kinds")
        if there is None or any(word.startswith("task.kinds=") for word in self.given):
            return [f"task={suite}"]
        return [f"task={suite}", f"task.kinds=[{','.join(kind for kind in there if kind in self.kinds)}]"]

    def job(self, suite: str, pruner: str, sparsity: str) -> Settings:
        """Return the settings of one of these jobs without running it."""
        words = self.words(suite, [pruner], [sparsity], EVALUATION)[1:]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return resolve(compose("config", overrides=[*own_words(words), *searched()]))


def read_question(arguments: Sequence[str]) -> tuple[Question | None, list[str]]:
    """Return the question that a command line asks, or sentences on what is wrong with it."""
    own, others, found = _sorted(translated(arguments))
    found += contradictions(arguments)
    keep, evaluations = _number(own.get("keep", "0.9")), _number(own.get("evaluations", "3"))
    if keep is None or not 0 < keep <= 1:
        found.append(
            f"keep={shortened(own['keep'])} should be a number above 0 and at most 1: the fraction of the dense score "
            "above chance to retain, such as 0.9"
        )
    if evaluations is None or evaluations < 1 or evaluations != int(evaluations):
        found.append(f"evaluations={shortened(own['evaluations'])} should be a whole number of at least 1, such as 3")
    pruners = _listed(own.get("pruners", ",".join(PRUNERS)))
    found += _pruner_problems(pruners)
    given = [word for word in others if not word.startswith("task=")]
    if not any(word.startswith("calibration=") for word in given):
        given.append(_CALIBRATION)
    kinds, suites = _suites(own.get("tasks", "generative"), [word for word in others if word not in given], found)
    found += launcher_problems(given)
    for suite in suites:
        # Checked before the pruners: a mistake in what is passed on would otherwise be reported for each of them.
        found += problems([*given, f"task={suite}", PROTOCOLS], multirun=False)
    found = list(dict.fromkeys(map(_in_our_words, found)))
    if found or keep is None or evaluations is None:
        return None, found
    ladders, units = _ladders(pruners, [*own_words(given), f"task={suites[0]}"])
    question = Question(keep, kinds, suites, int(evaluations), tuple(given), ladders, units)
    found = _job_problems(question)
    return (None, found) if found else (question, [])


def own_words(given: Sequence[str]) -> list[str]:
    """Return the words about a job, without those about how it is launched."""
    return [word for word in given if not is_hydras(word.partition("=")[0])]


def _in_our_words(problem: str) -> str:
    """Reword a problem whose remedy would name a word that the advice does not accept."""
    what, encoder, _ = problem.partition(" is an encoder, which generates no text")
    return f"{what}{encoder}; give a model that generates text, since the texts are compared" if encoder else problem


def _sorted(arguments: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the advice's own words by key, the other words, and what is wrong with the form of either."""
    own: dict[str, str] = {}
    others, found = [], []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        shown = shortened(argument)
        if argument.startswith("-"):
            found.append(f"unknown flag {shown}; use --help for help, and key=value for settings")
        elif key in OWN and equals:
            own[key] = value
        elif key.lstrip("+~") in _DECIDED:
            found.append(f"{shown}: {key.lstrip('+~')} cannot be set here; {_DECIDED[key.lstrip('+~')]}")
        else:
            others.append(argument)
    words = read_words(others, multirun=True)
    several = [key for key, options in (words.groups | words.values).items() if len(options) > 1]
    found += [f"{key} lists several values, but advice takes one at a time; give one value" for key in several]
    others = [word for word in others if word.partition("=")[0] not in several]
    return own, others, found


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _listed(text: str) -> list[str]:
    """Return the words of ``[a,b]`` or ``a,b``, each once."""
    return list(dict.fromkeys(word.strip() for word in text.strip("[]").split(",") if word.strip()))


def _pruner_problems(pruners: Sequence[str]) -> list[str]:
    if not pruners:
        return [f"pruners is empty; choose from {', '.join(choices_of('pruner'))}"]
    usable = [name for name in choices_of("pruner") if defaults_problem("pruner", name) is None and _accepts(name)]
    found = []
    for name in pruners:
        if name not in choices_of("pruner"):
            found.append(f"pruners: {shortened(name)} does not exist; {nearest(name[:100], usable)}")
        elif problem := defaults_problem("pruner", name):
            found.append(problem)
        elif name not in usable:
            found.append(f"pruners: {name} takes no sparsity, so there is nothing to vary; leave it out")
    return found


def _accepts(name: str) -> tuple[str, ...]:
    return tuple(kind for kind in declared(read_choice("pruner", name), "accepts") or () if kind != "pattern")


def _suites(tasks: str, chosen: Sequence[str], found: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the kinds of task that a word asks for, and the suites with them. Problems are appended to ``found``."""
    if tasks not in TASKS:
        found.append(f"tasks={shortened(tasks)} does not exist; {nearest(tasks[:100], TASKS)}")
        return (), ()
    kinds = TASKS[tasks]
    asked = {True: any(kind != RETRIEVAL for kind in kinds), False: RETRIEVAL in kinds}
    suites = {True: "matched", False: "retrieval"}
    for word in chosen[-1:]:
        suite = word.removeprefix("task=")
        if suite not in choices_of("task"):
            found.append(f"{shortened(word)} does not exist; {nearest(suite[:100], choices_of('task'))}")
            return kinds, ()
        writes = writes_text(read_choice("task", suite))
        if not asked[writes]:
            found.append(f"{word} has no {' or '.join(kinds)} tasks; leave it out, or give other tasks=...")
        suites[writes] = suite
    return kinds, tuple(suites[writes] for writes in asked if asked[writes])


def _ladders(pruners: Sequence[str], words: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the sparsities of each pruner, and the kind of unit that each removes."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model: Any = OmegaConf.to_container(compose("config", overrides=[*words, *searched()]).model, resolve=True)
    blocks = layers_of(model)
    ladders: dict[str, tuple[str, ...]] = {}
    units: dict[str, str] = {}
    for name in pruners:
        units[name] = unit = str(declared(read_choice("pruner", name), "unit"))
        if unit not in _UNITS:
            ladders[name] = WEIGHTS
        elif blocks is None:
            ladders[name] = SHARES
        else:
            ladders[name] = tuple(unit_counts(blocks * _UNITS[unit]))
    return ladders, units


def _job_problems(question: Question) -> list[str]:
    """Return the problems of the jobs themselves, with every stage asked for."""
    found = []
    for sparsities, pruners in by_sparsities(question.ladders):
        for suite in question.suites:
            words = question.words(suite, pruners, sparsities, "stages=[prune,evaluate,capture,measure]")
            found += problems(words[1:], multirun=True)
    return list(dict.fromkeys(found))


def by_sparsities(ladders: Mapping[str, tuple[str, ...]]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Group the pruners that have the same sparsities, which one sweep can run."""
    ordered = sorted((sparsities, name) for name, sparsities in ladders.items() if sparsities)
    return [(key, [name for _, name in group]) for key, group in groupby(ordered, key=lambda pair: pair[0])]
