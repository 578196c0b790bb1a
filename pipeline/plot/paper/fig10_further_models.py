"""Score against achieved sparsity, as in fig01, for other models under the same settings."""

from __future__ import annotations

import pandas as pd

from pipeline.analysis.score_means import SAME_SETTINGS
from pipeline.plot.base import Figure, Selection
from pipeline.plot.score_curves import curves, draw_curves, line_notes, span
from pipeline.tables.read import Tables
from pipeline.tables.stored import MissingData

MODELS = 2


def select(tables: Tables) -> Selection:
    """Select task scores and their means, in percent, of the first other models by name."""
    evaluated = sorted(name for name, peer in tables.peers.items() if not peer.scores.empty)
    found, reasons = {}, []
    for name in evaluated:
        try:
            found[name] = curves(tables.peers[name])
        except MissingData as reason:
            reasons.append(f"{name}: {reason}")
    if not found:
        raise MissingData("; ".join(reasons) or "no other model was evaluated under these settings")
    shown, left_out = list(found)[:MODELS], list(found)[MODELS:]
    data = pd.concat([found[name][0] for name in shown], ignore_index=True)
    notes = [*line_notes(data), *_task_notes({name: found[name][1] for name in shown}), SAME_SETTINGS]
    if left_out:
        notes.append(f"Left out for space: {', '.join(left_out)}.")
    if reasons:
        notes.append(f"Not comparable: {', '.join(reason.partition(':')[0] for reason in reasons)}.")
    return Selection("Task scores against sparsity: further models", data, tuple(notes))


def _task_notes(tasks: dict[str, list[str]]) -> list[str]:
    """Return the notes on the tasks: once if they are the same for all models, else for each model."""
    if len({tuple(sentences) for sentences in tasks.values()}) == 1:
        return next(iter(tasks.values()))
    return [f"{name}: {' '.join(sentences)}" for name, sentences in tasks.items()]


FIGURE = Figure(select, draw_curves, version=3, span=span)
