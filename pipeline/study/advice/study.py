"""Jobs behind the advice: which of them exist, which are missing, and what they have found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from pipeline.config.sparsity import parse
from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.intervals import SCORES, Interval, mean_score, stratified
from pipeline.store.artifacts import Store
from pipeline.store.records import OK, JobRecord, find_record
from pipeline.study.advice.jobs import Execute
from pipeline.study.advice.judged import has_unlike_halves, retained_by_halves
from pipeline.study.advice.ladder import Kept, Rung, Setting
from pipeline.study.advice.question import EVALUATION, MEASURES, Question, by_sparsities
from pipeline.tables.choice import Choice
from pipeline.tables.job_tables import JobTables

DENSE = "dense"
NO_RESULT = "its job left no result; see the log"


@dataclass(frozen=True)
class Dense:
    """Mean score of the dense model in a kind of task, its lower limit, and the score of guessing."""

    value: float
    low: float
    chance: float

    @property
    def has_signal(self) -> bool:
        return self.low > self.chance


class Study:
    """Settings of a question and their jobs in the outputs folder.

    Attributes:
        model: the name of the model.
        store: the outputs folder.
        choices: the model and conditions of the jobs of each suite; the first suite's jobs take the cheap measures.
        settings: the lines of the choices, for readers.
    """

    def __init__(self, question: Question, execute: Execute) -> None:
        self.question, self._execute = question, execute
        self._jobs: dict[tuple[str, str, str], str] = {}
        self._tried: set[Setting] = set()
        self.choices: list[Choice] = []
        for suite in question.suites:
            for pruner, sparsities in {DENSE: ("0",), **question.ladders}.items():
                self._describe(suite, pruner, sparsities)

    def _describe(self, suite: str, pruner: str, sparsities: Sequence[str]) -> None:
        """Find out the names of jobs without running them."""
        # Deferred: the import takes seconds, and mistakes are reported before.
        from pipeline.run.job_record import describe

        settings = self.question.job(suite, pruner, sparsities[0])
        for sparsity in sparsities:
            job = describe(replace(settings, sparsity=parse(sparsity)))
            self._jobs[suite, pruner, sparsity] = job.job
        self.model = job.model
        if (choice := Choice(job.model_id, job.settings_id, job.settings)) not in self.choices:
            self.choices.append(choice)
        self.store = Store(Path(settings.outputs))

    @property
    def jobs(self) -> list[str]:
        """The ids of all jobs of the question."""
        return list(self._jobs.values())

    @property
    def settings(self) -> str:
        return "; ".join(choice.line for choice in self.choices)

    # --- running -----------------------------------------------------------------------------------------------

    def evaluate(self, chosen: Iterable[Setting]) -> None:
        """Evaluate settings on all suites where results are missing. Failed jobs do not raise."""
        chosen = list(chosen)
        self._tried |= set(chosen)
        for suite in self.question.suites:
            role = "comparison" if any(pruner != DENSE for pruner, _ in chosen) else "evaluation"
            self._run(suite, [setting for setting in chosen if not self._has(suite, setting, role)], EVALUATION)

    def measure(self) -> None:
        """Take the cheap measures of every setting."""
        suite = self.question.suites[0]
        missing = [setting for setting in self._settings() if not self._has(suite, setting, "measures")]
        self._run(suite, missing, MEASURES)

    def _run(self, suite: str, settings: Sequence[Setting], stages: str) -> None:
        ladders: dict[str, tuple[str, ...]] = {}
        for pruner, sparsity in settings:
            ladders[pruner] = (*ladders.get(pruner, ()), sparsity)
        for sparsities, pruners in by_sparsities(ladders):
            self._execute(self.question.words(suite, pruners, sparsities, stages))

    # --- what is there -----------------------------------------------------------------------------------------

    def record(self, suite: str, setting: Setting) -> JobRecord | None:
        return find_record(self.store, self._jobs[suite, *setting])

    def _has(self, suite: str, setting: Setting, role: str) -> bool:
        """Return whether a job has ended well with an intact artifact of this role."""
        record = self.record(suite, setting)
        if record is None or record.status != OK or role not in record.artifacts:
            return False
        path = self.store.root / record.artifacts[role]
        return path.is_dir() and self.store.problem(path) is None

    def dense(self) -> dict[str, Dense]:
        """Return the dense model's mean scores by kind of task."""
        parts: dict[str, list[tuple[Interval, int, float]]] = {}
        for suite in self.question.suites:
            if (asked := self._asked(suite, (DENSE, "0"))) is None:
                continue
            items, scores = asked
            # As in comparisons with it: only what is averaged, without items that have no score.
            counted = scores["main"].astype(bool) & scores["averaged"].astype(bool)
            main = scores[counted & scores["kind"].isin(self.question.kinds)]
            items = items.dropna(subset="score")
            for row in main.itertuples():
                of_task = (items["kind"] == row.kind) & (items["task"] == row.task)
                own = items.loc[of_task, "score"].to_numpy(dtype=float)
                if not len(own) or own.min() < SCORES[0] or own.max() > SCORES[1]:
                    continue
                chance = 0.0 if pd.isna(row.chance) else float(row.chance)
                parts.setdefault(str(row.kind), []).append((mean_score(own), len(own), chance))
        found = {}
        for kind, tasks in parts.items():
            intervals, counts, chances = zip(*tasks, strict=True)
            score = stratified(intervals, counts, SCORES)
            found[kind] = Dense(score.value, score.low, sum(chances) / len(chances))
        return found

    def why_not_dense(self) -> str:
        """Return why the dense model has no scores of some kind of task."""
        for suite in self.question.suites:
            record = self.record(suite, (DENSE, "0"))
            if record is None or record.status != OK:
                return (record.error if record else None) or NO_RESULT
        return "no task of this kind was evaluated; give another task=... or other tasks=..."

    def measured(self) -> Kept:
        """Return the share of the dense score above chance that evaluated settings retain, by kind of task."""
        found: dict[Setting, dict[str, Interval]] = {}
        for (suite, pruner, sparsity), _ in self._jobs.items():
            record = self.record(suite, (pruner, sparsity))
            compared = None if record is None else JobTables(record, self.store).comparisons
            if pruner == DENSE or compared is None:
                continue
            means = compared[(compared["task"] == MEAN) & compared["kind"].isin(self.question.kinds)]
            for row in means.itertuples():
                if math.isfinite(row.retained):
                    kept = Interval(float(row.retained), float(row.retained_low), float(row.retained_high))
                    found.setdefault((pruner, sparsity), {})[str(row.kind)] = kept
        return found

    def halves(self) -> tuple[Kept, Kept]:
        """Return the shares of `measured` by each half of what is `divided`: see `pipeline.study.advice.judged`."""
        found: tuple[dict[Setting, dict[str, Interval]], ...] = ({}, {})
        for suite in self.question.suites:
            dense = self._asked(suite, (DENSE, "0"))
            for setting in self._settings():
                if dense is None or (own := self._asked(suite, setting)) is None:
                    continue
                for half, kinds in zip(found, retained_by_halves(dense, own), strict=True):
                    known = {kind: share for kind, share in kinds.items() if kind in self.question.kinds}
                    half.setdefault(setting, {}).update(known)
        return found[0], found[1]

    @property
    def divided(self) -> str:
        """Name what `halves` are halves of."""
        dense = [self._asked(suite, (DENSE, "0")) for suite in self.question.suites]
        unlike = [has_unlike_halves(asked[0]["task"].unique()) for asked in dense if asked is not None]
        return " and ".join([*(["task families"] if any(unlike) else []), *([] if all(unlike) else ["items"])])

    def _asked(self, suite: str, setting: Setting) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Return a setting's items and scores, or None if it was not evaluated."""
        record = self.record(suite, setting)
        tables = None if record is None else JobTables(record, self.store)
        if tables is None or (items := tables.items) is None or (scores := tables.scores) is None:
            return None
        return items, scores

    def failures(self) -> dict[Setting, str]:
        """Return why settings that were asked for have no cheap measures or no scores."""
        found = {}
        for setting in self._settings():
            wanted = [(self.question.suites[0], "measures")]
            wanted += [(suite, "comparison") for suite in self.question.suites if setting in self._tried]
            for suite, role in wanted:
                if not self._has(suite, setting, role):
                    record = self.record(suite, setting)
                    found[setting] = (record.error if record else None) or NO_RESULT
        return found

    def rungs(self, pruner: str) -> list[Rung]:
        """Return a pruner's sparsities, with what they remove and whether they were evaluated."""
        suites = self.question.suites
        rungs = []
        for sparsity in self.question.ladders[pruner]:
            setting = pruner, sparsity
            rungs.append(
                Rung(
                    sparsity,
                    removed=_removed(self.record(suites[0], setting)),
                    tried=setting in self._tried or all(self._has(suite, setting, "comparison") for suite in suites),
                )
            )
        return rungs

    def parameters(self) -> int:
        """Return the number of parameters of the dense model, or 0 if no job has ended well."""
        records = [self.record(self.question.suites[0], setting) for setting in self._settings()]
        return max((record.dense_parameters or 0 for record in records if record is not None), default=0)

    def _settings(self) -> list[Setting]:
        return [(pruner, sparsity) for pruner, ladder in self.question.ladders.items() for sparsity in ladder]


def _removed(record: JobRecord | None) -> int | None:
    if record is None or record.parameters is None or record.dense_parameters is None:
        return None
    return record.dense_parameters - record.parameters
