"""Evolution: search for the set of units whose removal changes the predictions least, by mutation and selection.

EvoPress (Sieberling et al., ICML 2025, arXiv 2410.14649) for depth pruning. A generation makes offspring of the best
sets. Each offspring differs by a few switches, in which one removed unit comes back and a kept one goes, so that the
budget stays the same; their number is the smaller of two draws. The fitness is KL(dense‖pruned) on the text, measured
in several selections, on more tokens of fewer sets each time; in the last one, the parents compete again. Its public
code keeps as many attention as MLP sublayers; here a joint search may switch one kind for the other. When that code
drops whole blocks, half of its switches do nothing; here each one changes the set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.config.types import Positive
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_scores
from pipeline.model.proof import head_of
from pipeline.model.trajectory import Trajectory, forwards
from pipeline.prune.base import Context, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.divergence import DensePredictions
from pipeline.prune.methods.random import generator
from pipeline.prune.methods.unit_search import tokens_of
from pipeline.prune.methods.units import Unit, UnitPruner, by_kind, decision_of
from pipeline.prune.surgery import dropped

Removed = frozenset[Unit]
# The fitness of sets, the lower the better, on about so many tokens.
Fitness = Callable[[Sequence[Removed], int], list[float]]
# Offspring that repeat another are drawn again, up to so many times each: small models do not have that many.
_TRIES = 20
# The published rule for generations: k (n - k) / 1.5, with k of n units removed.
_PER_GENERATION = 1.5
# A generation of which all sets are drawn afresh has this many times the offspring of others.
_FIRST = 2


@dataclass(frozen=True)
class Evolution(UnitPruner):
    """Removes the best set of units that is found in so many ``generations``; None stands for k·(n - k) / 1.5.

    Each has so many ``offspring``, with at most ``mutations`` switches. ``survivors`` are the sets that each selection
    keeps, by their fitness on as many of the ``tokens`` that the text predicts, drawn anew each time. ``scores`` has
    the fitness of the best set of every generation, with the number of sets measured (``questions``) and the
    ``forward_tokens`` that were sent through the model. Raises ValueError unless both lists have one number for each
    selection, the survivors falling and the tokens rising.
    """

    generations: Positive | None = None
    offspring: Positive = 32
    mutations: Positive = 3
    survivors: list[Positive] = field(default_factory=lambda: [2, 1])
    tokens: list[Positive] = field(default_factory=lambda: [2048, 32768])

    compares: ClassVar[bool] = True
    own_text: ClassVar[bool] = True

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        self._check()
        units, count = self.units(decoder), self.count(decoder, sparsity)
        if not count:
            return Decision()
        numbers = generator("evolution", self.unit, sparsity.given, context.seed)
        fitness = _Divergence(decoder, context, numbers)
        generations = self.generations or max(1, int(count * (len(units) - count) / _PER_GENERATION))
        population = self._first(units, count, numbers)
        population, best = self._selected(fitness, population, [], self.survivors[-1:], self.tokens[:1])
        scores = [fitness.told(0, best)]
        for number in context.progress(range(1, generations + 1), self.name, generations):
            if not (offspring := self._offspring(units, population, numbers)):
                break
            population, best = self._selected(fitness, offspring, population, self.survivors, self.tokens)
            scores.append(fitness.told(number, best))
        return decision_of(sorted(population[0], key=units.index), scores)

    def _check(self) -> None:
        falling = sorted(self.survivors, reverse=True) == self.survivors
        if not (len(self.survivors) == len(self.tokens) > 0 and falling and sorted(self.tokens) == self.tokens):
            raise ValueError(
                f"pruner.survivors={self.survivors} and pruner.tokens={self.tokens} should have one number for each "
                "selection, survivors falling and tokens rising, such as [2, 1] and [2048, 32768]"
            )

    def _first(self, units: Sequence[Unit], count: int, numbers: torch.Generator) -> list[Removed]:
        """Draw the sets of the first generation, all different."""
        found: dict[Removed, None] = {}
        wanted = _FIRST * self.offspring
        for _ in range(_TRIES * wanted):
            order = torch.randperm(len(units), generator=numbers).tolist()
            found[frozenset(units[at] for at in order[:count])] = None
            if len(found) == wanted:
                break
        return list(found)

    def _offspring(
        self, units: Sequence[Unit], population: Sequence[Removed], numbers: torch.Generator
    ) -> list[Removed]:
        """Draw offspring of a population, different from it and from each other."""
        found: dict[Removed, None] = {}
        for _ in range(_TRIES * self.offspring):
            parent = population[_draw(len(population), numbers)]
            switches = 1 + min(_draw(self.mutations, numbers), _draw(self.mutations, numbers))
            if (child := switched(units, parent, switches, numbers)) not in population:
                found[child] = None
            if len(found) == self.offspring:
                break
        return list(found)

    def _selected(
        self,
        fitness: Fitness,
        sets: Sequence[Removed],
        parents: Sequence[Removed],
        survivors: Sequence[int],
        tokens: Sequence[int],
    ) -> tuple[list[Removed], float]:
        """Return the sets that survive all selections, the best first, and its fitness in the last of them."""
        left, values = list(sets), [0.0]
        for place, (kept, some) in enumerate(zip(survivors, tokens, strict=True)):
            if place == len(survivors) - 1:
                left += [parent for parent in parents if parent not in left]
            values = fitness(left, some)
            order = sorted(range(len(left)), key=values.__getitem__)[:kept]
            left, values = [left[at] for at in order], [values[at] for at in order]
        return left, values[0]


def switched(units: Sequence[Unit], removed: Removed, switches: int, numbers: torch.Generator) -> Removed:
    """Return a set after so many switches of a removed unit with one that is kept; one without both stays as it is."""
    for _ in range(switches):
        gone, kept = ([unit for unit in units if (unit in removed) == which] for which in (True, False))
        if gone and kept:
            removed = removed - {gone[_draw(len(gone), numbers)]} | {kept[_draw(len(kept), numbers)]}
    return removed


def _draw(count: int, numbers: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=numbers))


class _Divergence:
    """The fitness of sets: KL(dense‖pruned), nats per token, on tokens of the text that are drawn for each selection.

    Sets are measured on the whole text only once. Counts what was measured since it was last told of.
    """

    def __init__(self, decoder: Decoder, context: Context, numbers: torch.Generator) -> None:
        assert context.trajectory is not None
        self._decoder, self._whole, self._numbers = decoder, context.trajectory, numbers
        self._head = head_of(decoder, torch.float32)
        self._known: dict[Removed, float] = {}
        self._questions = self._sent = 0

    @torch.inference_mode()
    def __call__(self, sets: Sequence[Removed], tokens: int) -> list[float]:
        text = drawn_part(self._whole, tokens, self._numbers)
        known = self._known if text is self._whole else {}
        dense, passes = DensePredictions(self._head, text, confidence=0.0), list(forwards(text, tight=True))
        for removed in dict.fromkeys(sets):
            if removed in known:
                continue
            with dropped(self._decoder, by_kind(list(removed))):
                states = (each.at_predictions(each.run(self._decoder.model)) for each in passes)
                known[removed] = dense.divergence(states)
            check_scores([self._row(known[removed])], f"the model without {len(removed)} units")
            self._questions += 1
            self._sent += tokens_of(text)
        return [known[removed] for removed in sets]

    def told(self, generation: int, fitness: float) -> Score:
        """Return the row of a generation."""
        row = self._row(fitness) | {"step": generation}
        row |= {"questions": self._questions, "forward_tokens": float(self._sent)}
        self._questions = self._sent = 0
        return row

    def _row(self, fitness: float) -> dict[str, Any]:
        return {"layer": -1, "sublayer": "set", "score": fitness}


def drawn_part(trajectory: Trajectory, tokens: int, numbers: torch.Generator) -> Trajectory:
    """Return sequences drawn from a trajectory that predict exactly so many tokens, the last one cut; or all of it."""
    if sum(map(len, trajectory.tokens)) <= tokens:
        return trajectory
    starts, at = [], 0
    for row in trajectory.tokens:
        starts.append(at)
        at += len(row)
    taken: dict[int, int] = {}
    for row in torch.randperm(len(trajectory.tokens), generator=numbers).tolist():
        if (room := tokens - sum(taken.values())) <= 0:
            break
        taken[row] = min(room, len(trajectory.tokens[row]))
    # Sequences stay in the order of their lengths, so that passes need little padding.
    rows = sorted(row for row in taken if taken[row])
    return replace(
        trajectory,
        names=[trajectory.names[row] for row in rows],
        prompts=[trajectory.prompts[row] for row in rows],
        tokens=[trajectory.tokens[row][: taken[row]] for row in rows],
        texts=[trajectory.texts[row] for row in rows],
        final=torch.cat([trajectory.final[starts[row] : starts[row] + taken[row]] for row in rows]),
    )
