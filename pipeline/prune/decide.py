"""A pruner at work on a dense model in memory: its scores, its decision, and the decision carried out."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import torch

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder
from pipeline.model.dropped import Replaced
from pipeline.model.finite import check_finite, check_scores
from pipeline.model.forward_count import counting_forwards
from pipeline.prune.accounting import account
from pipeline.prune.base import SCORE_KEYS, Candidates, Context, Dropped, Pruner
from pipeline.prune.decision import Decision
from pipeline.prune.shared_setup import SharedSetup
from pipeline.prune.surgery import apply, dropped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SENT, _COUNTED = "forward_tokens", "counted_tokens"
# Scores of the model without some sublayers, of the candidates if there are any; the set-up is shared by all calls.
Scoring = Callable[[SharedSetup, Dropped, Candidates], pd.DataFrame]


def score(model: PreTrainedModel, name: str, pruner: Pruner, gone: Dropped, context: Context) -> pd.DataFrame:
    """Score the dense model, called ``name``, without the sublayers ``gone``: one row a unit or matrix.

    ``counted_tokens`` went through the model for them, an equal share in each row.

    Raises ValueError for scores that are not finite, and for what are no rows of scores.
    """
    decoder = Decoder(model)
    with counting_forwards(decoder) as count, dropped(decoder, gone):
        rows = pruner.importance(decoder, context)
    _check_rows(rows, pruner.name)
    check_scores(rows, f"{name} scored by {pruner.name}")
    return pd.DataFrame(rows).assign(**{_COUNTED: count.tokens / max(len(rows), 1)})


def _check_rows(rows: object, name: str) -> None:
    """Raise ValueError, naming the pruner, unless these are rows with all that a score needs."""
    wanted = f"return a list of rows with {', '.join(SCORE_KEYS[:-1])} and {SCORE_KEYS[-1]}"
    if not isinstance(rows, list):
        raise ValueError(f"pruner {name}: importance() returned a {type(rows).__name__}; {wanted}")
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"pruner {name}: row {place} of importance() is a {type(row).__name__}; {wanted}")
        if missing := [key for key in SCORE_KEYS if key not in row]:
            raise ValueError(f"pruner {name}: row {place} of importance() lacks {', '.join(missing)}; {wanted}")
        if not isinstance(value := row["score"], numbers.Real):
            raise ValueError(
                f"pruner {name}: the score in row {place} of importance() is a {type(value).__name__}; give a number"
            )


def decide(model: PreTrainedModel, pruner: Pruner, sparsity: Sparsity, context: Context, scoring: Scoring) -> Decision:
    """Decide what to remove from a dense model, and count it.

    The model may be left with weights changed as decided. Random numbers start from ``context.seed``. Raises ValueError
    for a model that the pruner does not work on.
    """
    decoder = Decoder(model)
    if why := pruner.unsuited(model.config):
        raise ValueError(f"pruner {pruner.name} {why}")
    torch.manual_seed(context.seed)
    # What an interrupted run had sent is not known; `unseen` is what scores have cost beyond the passes made here.
    resumed, unseen = bool(context.changes), [0.0]
    with SharedSetup() as setup, counting_forwards(decoder) as count:

        def scores(gone: Dropped, candidates: Candidates = ()) -> list[dict]:
            before = count.tokens
            rows = scoring(setup, gone, candidates)
            # What scores say of themselves holds for those from the store, too, for which no pass was made now.
            told = float(rows.pop(_COUNTED).sum()) if _COUNTED in rows else math.nan
            unseen.append(told - (count.tokens - before))
            return rows.to_dict("records")

        decided = pruner.decide(decoder, sparsity, replace(context, scores=scores))
    _check(decided, len(decoder.blocks), pruner.name)
    # A search knows better: it leaves out what candidates share.
    own = [row[_SENT] for row in decided.scores if _SENT in row]
    total = math.fsum(own or [count.tokens, *unseen])
    known = math.isfinite(total) and not resumed
    return account(decoder, replace(decided, forward_tokens=total if known else None))


def _check(decided: object, blocks: int, name: str) -> None:
    """Raise ValueError, naming the pruner, unless this is a decision about blocks that the model has."""
    if not isinstance(decided, Decision):
        raise ValueError(f"pruner {name}: decide() returned a {type(decided).__name__}; return a Decision")
    named = {"blocks": decided.blocks, "attention": decided.attention, "mlp": decided.mlp, "changes": decided.changes}
    for key, layers in named.items():
        if wrong := [layer for layer in layers if not 0 <= layer < blocks]:
            raise ValueError(
                f"pruner {name}: {key} of its decision names the block {wrong[0]}, but the model has {blocks}, counted "
                "from 0"
            )


def carry_out(model: PreTrainedModel, name: str, pruner: Pruner, decision: Decision) -> list[Replaced]:
    """Prune a model, called ``name``, in place as decided; return its dropped modules.

    Raises ValueError if weights are not finite afterwards.
    """
    gone = apply(model, decision)
    check_finite(model, f"{name} pruned by {pruner.name}")
    return gone
