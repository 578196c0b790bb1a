"""The options protocol as tables: whole vocabulary, option tokens, and random tokens of the same ranks as control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from pipeline.capture.options import Question
from pipeline.measure.finite import check_measures
from pipeline.measure.subspace import rank_matched, ranks, subspace
from pipeline.model.finite import check_values
from pipeline.model.head import Head
from pipeline.model.trajectory import KEY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY, OPTIONS, CONTROL = "vocabulary", "options", "control"
# Number of random token sets compared with each question's options, and number of likeliest tokens listed.
DRAWS, TOP = 16, 10
# Measures of a set that must be finite; ``correct_*`` is not among them, as the right option may be unknown.
_MEASURES = ("kl", "kl_reverse", "cos_p", "flip", "mass_dense", "mass_pruned", "margin_dense", "margin_pruned")


@torch.inference_mode()
def measure_options(
    questions: Sequence[Question],
    dense: torch.Tensor,
    pruned: torch.Tensor,
    head: Head,
    temperatures: Sequence[float],
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure sets and tokens at the first decision step; ``dense`` and ``pruned`` are final states (K, D).

    The first table has a row for each question, set ("vocabulary", "options", or one of several draws of "control")
    and temperature: ``size``; ``kl``, ``kl_reverse``, ``cos_p`` and ``flip`` of the probabilities renormalised inside
    the set; ``mass_*``, the probability of the set in the whole vocabulary; ``rank_*``, the mean number of tokens
    above one of the set; ``margin_*`` of the set's dense winner over its best rival in nats; ``correct_*``, whether
    the right option wins (missing for other sets and if the right option is unknown). The second has a row for each
    option and each of the dense model's likeliest tokens, with log-probabilities at temperature 1 and ranks.

    Raises ValueError if a measure is not finite.
    """
    for states in (dense, pruned):
        check_values(states, "states where options are chosen", KEY)
    head = head.to(torch.promote_types(head.weight.dtype, torch.float32))
    generator = torch.Generator().manual_seed(seed)
    sets: list[dict[str, Any]] = []
    tokens: list[dict[str, Any]] = []
    for question, h, other in zip(questions, dense, pruned, strict=True):
        z, delta = _logits(h, other, head)
        who = {"prompt": question.name, "origin": question.origin}
        for name, draw, members in _sets(question, z, generator):
            sets += [
                who | {"set": name, "draw": draw, "temperature": float(temperature)} | row
                for temperature, row in zip(
                    temperatures,
                    _rows(z, delta, members, question if name == OPTIONS else None, temperatures),
                    strict=True,
                )
            ]
        tokens += [who | row for row in _tokens(question, z, delta, tokenizer)]
    return (
        check_measures(pd.DataFrame(sets), _MEASURES, "options"),
        check_measures(pd.DataFrame(tokens), ("logp_dense", "logp_pruned"), "options"),
    )


def _logits(h: torch.Tensor, other: torch.Tensor, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the dense logits and their perturbation at one position, (1, V)."""
    h, other = h.to(head.weight).unsqueeze(0), other.to(head.weight).unsqueeze(0)
    z, delta = head.capped(head.project(h), head.change(other - h))
    return z.cpu(), delta.cpu()


def _sets(
    question: Question, z: torch.Tensor, generator: torch.Generator
) -> Iterator[tuple[str, int, torch.Tensor | None]]:
    options = torch.tensor([question.options])
    yield VOCABULARY, 0, None
    yield OPTIONS, 0, options
    order = z[0].argsort(descending=True, stable=True)
    # Places in this order, not ranks: tokens of equal logits share a rank.
    places = order.argsort()[options[0]]
    for draw, members in enumerate(rank_matched(order, places, DRAWS, generator)):
        yield CONTROL, draw, members.unsqueeze(0)


def _rows(
    z: torch.Tensor,
    delta: torch.Tensor,
    members: torch.Tensor | None,
    question: Question | None,
    temperatures: Sequence[float],
) -> Iterator[dict[str, float]]:
    """Yield the row of one set (the whole vocabulary if None) at each temperature."""
    inside, change = (z, delta) if members is None else (z.gather(-1, members), delta.gather(-1, members))
    middle = (z.shape[-1] - 1) / 2
    before, after = (middle if members is None else float(ranks(x, members).double().mean()) for x in (z, z + delta))
    correct = {"correct_dense": float("nan"), "correct_pruned": float("nan")}
    if question is not None and question.gold >= 0:
        correct["correct_dense"] = float(inside.argmax() == question.gold)
        correct["correct_pruned"] = float((inside + change).argmax() == question.gold)
    for temperature in temperatures:
        measured = {name: float(value) for name, value in subspace(inside, change, temperature).items()}
        mass = {
            f"mass_{who}": 1.0
            if members is None
            else float(torch.softmax(x.double() / temperature, -1).gather(-1, members).sum())
            for who, x in (("dense", z), ("pruned", z + delta))
        }
        size = {"size": float(inside.shape[-1]), "rank_dense": before, "rank_pruned": after}
        yield size | measured | mass | correct


def _tokens(
    question: Question, z: torch.Tensor, delta: torch.Tensor, tokenizer: PreTrainedTokenizerBase
) -> Iterator[dict[str, Any]]:
    top = z[0].topk(min(TOP, z.shape[-1])).indices
    log_p, log_q = (torch.log_softmax(x[0].double(), -1) for x in (z, z + delta))
    for role, members in (("option", torch.tensor(question.options)), ("top", top)):
        before, after = (ranks(x, members.unsqueeze(0))[0] for x in (z, z + delta))
        for place, token in enumerate(members.tolist()):
            yield {
                "role": role,
                "place": place,
                "token": token,
                "text": question.texts[place] if role == "option" else tokenizer.decode([token]),
                "gold": role == "option" and place == question.gold,
                "logp_dense": float(log_p[token]),
                "logp_pruned": float(log_q[token]),
                "rank_dense": int(before[place]),
                "rank_pruned": int(after[place]),
            }
