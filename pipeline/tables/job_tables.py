"""Results of one job, from its artifacts: each property is read once, when it is first accessed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from pipeline.evaluate.results import read_samples
from pipeline.model.structure import SUBLAYERS
from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord
from pipeline.store.table_names import (
    AGREEMENT,
    COMPARISONS,
    DECISION,
    FIDELITY,
    ITEMS,
    MEASURES,
    RANKINGS,
    SCORES,
    SET_MEASURES,
    STATES,
)
from pipeline.tables.job_columns import with_columns

log = logging.getLogger(__name__)


@dataclass
class JobTables:
    """Tables of one job, with the columns that identify it; None for a table that it does not have."""

    record: JobRecord
    store: Store

    @cached_property
    def scores(self) -> pd.DataFrame | None:
        """Scores of all tasks and the perplexity: the columns of ``Results``, and ``achieved``."""
        frame = self._scores("")
        return None if frame is None else with_columns(frame, self.record).assign(achieved=self.record.achieved)

    @cached_property
    def dense_scores(self) -> pd.DataFrame | None:
        """Scores of the dense model under the same settings, without columns of this job."""
        return self._scores("dense ")

    @cached_property
    def comparisons(self) -> pd.DataFrame | None:
        """Comparisons with the scores of the dense model, task by task."""
        return self._told("comparison", COMPARISONS)

    @cached_property
    def fidelity(self) -> pd.DataFrame | None:
        """How answers differ from those of the dense model, task by task."""
        return self._told("comparison", FIDELITY)

    @cached_property
    def agreement(self) -> pd.DataFrame | None:
        """Final states over positions, one row per protocol and temperature; None for the dense model."""
        return self._told("measures", AGREEMENT)

    @cached_property
    def items(self) -> pd.DataFrame | None:
        """Score of every item."""
        return self._told("evaluation", ITEMS)

    @cached_property
    def measures(self) -> pd.DataFrame | None:
        """Measures of captured states, one row per position; None for the dense model."""
        return self._told("measures", MEASURES)

    @cached_property
    def set_measures(self) -> pd.DataFrame | None:
        """Further measures of sets of states, one row per measure and place; None without any."""
        return self._told("set measures", SET_MEASURES)

    @cached_property
    def decision(self) -> dict[str, Any]:
        """Decision of the pruner, as stored in its file; empty if there is none."""
        path = self.record.artifacts.get("decision")
        return {} if path is None else json.loads((self.store.root / path / DECISION).read_text(encoding="utf-8"))

    @cached_property
    def dropped(self) -> dict[str, list[int]]:
        """Layers that lose a sublayer, by its kind; a dropped block loses both, and changed weights lose none."""
        kinds = {kind: {*self.decision.get("blocks", ()), *self.decision.get(kind, ())} for kind in SUBLAYERS}
        return {kind: sorted(layers) for kind, layers in kinds.items()}

    @cached_property
    def mixers(self) -> list[int]:
        """Layers whose attention sublayer is another mixer of tokens."""
        return list(self.decision.get("mixers", ()))

    @cached_property
    def rankings(self) -> pd.DataFrame | None:
        """Scores from a search for units: layer, sublayer, score, step (-1: of the unit alone)."""
        rows = [score for score in self.decision.get("scores", ()) if "step" in score]
        return with_columns(pd.DataFrame(rows), self.record) if rows else None

    def table(self, name: str) -> pd.DataFrame | None:
        """Return the job's rows of a table by its file name, one of ``pipeline.store.table_names``."""
        own = {SCORES: "scores", COMPARISONS: "comparisons", ITEMS: "items", RANKINGS: "rankings"}
        own |= {MEASURES: "measures", SET_MEASURES: "set_measures", FIDELITY: "fidelity", AGREEMENT: "agreement"}
        return getattr(self, own[name]) if name in own else self._told(STATES[name], name)

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield every item with its prompt, completion, gold answer and score."""
        path = self.record.artifacts.get("evaluation")
        return iter(()) if path is None else read_samples(self.store.root / path)

    def _scores(self, whose: str) -> pd.DataFrame | None:
        parts = [self._read(f"{whose}{role}", SCORES) for role in ("evaluation", "perplexity")]
        there = [part for part in parts if part is not None]
        if not there:
            return None
        frame = pd.concat(there, ignore_index=True)
        # Results of an earlier version lack these columns.
        shares = frame["higher_is_better"].astype(bool) & frame["value"].between(0, 1)
        averaged = frame["averaged"].where(frame["averaged"].notna(), shares) if "averaged" in frame else shares
        data = frame["data"].fillna("") if "data" in frame else ""
        return frame.assign(averaged=averaged.astype(bool), data=data)

    def _told(self, role: str, name: str) -> pd.DataFrame | None:
        frame = self._read(role, name)
        return None if frame is None else with_columns(frame, self.record)

    def _read(self, role: str, name: str) -> pd.DataFrame | None:
        """Return a table of one of the job's artifacts; None if there is none or, with a warning, if it is damaged."""
        if role not in self.record.artifacts:
            return None
        artifact = self.store.root / self.record.artifacts[role]
        path = artifact / name
        if not path.is_file():
            return None
        if problem := self.store.problem(artifact):
            repair = "python -m pipeline.results verify --repair"
            log.warning("%s of job %s is left out: %s; %s", role, self.record.job, problem, repair)
            return None
        return pd.read_parquet(path)
