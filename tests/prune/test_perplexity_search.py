"""Pruning by perplexity: the rise of the loss that transformers computes itself, and the least of all candidates."""

from __future__ import annotations

import pytest
import torch
from cases import ENCODERS
from helpers import SOME_FAMILIES, calibration_batches, context_for, pruner_of

from pipeline.config.sparsity import parse
from pipeline.model.continuations import continued
from pipeline.model.decoder import Decoder
from pipeline.model.structure import ATTENTION, BLOCK, MLP
from pipeline.prune.base import Context
from pipeline.prune.methods.units import ALONE
from pipeline.prune.surgery import dropped

WRITERS = [name for name in SOME_FAMILIES if name not in ENCODERS]
KINDS = {
    "perplexity": (ATTENTION,),
    "perplexity_mlp": (MLP,),
    "perplexity_blocks": (BLOCK,),
    "perplexity_joint": (ATTENTION, MLP),
}


@torch.inference_mode()
def loss(model, gone) -> float:
    """Mean negative log-likelihood of the calibration text, in float64, of the model without these sublayers."""
    ids = torch.cat(calibration_batches())
    with dropped(Decoder(model), gone):
        logits = model(ids, use_cache=False).logits[:, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))


def without(path) -> dict[str, list[int]]:
    gone: dict[str, list[int]] = {}
    for kind, layer in path:
        gone.setdefault(kind, []).append(layer)
    return gone


@pytest.mark.parametrize("architecture", WRITERS)
def test_a_candidate_costs_what_it_adds_to_the_loss(make_model, architecture):
    model = make_model(architecture)
    pruner, candidates = pruner_of("perplexity"), [(ATTENTION, 0), (MLP, 2), (BLOCK, 3)]
    context = Context(trajectory=context_for(pruner, model).trajectory, candidates=candidates)
    rows = pruner.importance(Decoder(model), context)
    assert [(row["sublayer"], row["layer"]) for row in rows] == candidates
    for row in rows:
        expected = loss(model, {row["sublayer"]: [row["layer"]]}) - loss(model, {})
        assert row["score"] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("name", KINDS)
def test_every_step_takes_the_least_of_all_that_are_left(make_model, name):
    model, pruner = make_model(), pruner_of(name)
    assert pruner.kinds == KINDS[name]
    scores = pruner.decide(Decoder(model), parse(3), context_for(pruner, model)).scores
    path = [row for row in scores if row["step"] != ALONE]
    units = [(kind, layer) for layer in range(4) for kind in KINDS[name]]
    taken: list[tuple[str, int]] = []
    for row in path:
        losses = {unit: loss(model, without([*taken, unit])) for unit in units if unit not in taken}
        taken.append((row["sublayer"], row["layer"]))
        assert losses[taken[-1]] == pytest.approx(min(losses.values()), abs=1e-5)
        assert row["score"] == pytest.approx(losses[taken[-1]] - loss(model, {}), abs=2e-5)
        assert row["questions"] == len(losses)


def test_of_its_own_text_only_the_continuations_count(make_model, tokenizer):
    model = make_model()
    trajectory = continued(model, tokenizer, ["One prompt", "Another, which is longer"], 5)
    (row,) = pruner_of("perplexity").importance(Decoder(model), Context(trajectory=trajectory, candidates=[(MLP, 1)]))

    @torch.inference_mode()
    def likelihood() -> float:
        found = []
        for prompt, tokens in zip(trajectory.prompts, trajectory.tokens, strict=True):
            logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
            found.append(torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(tokens)[:, None]).sum())
        return float(sum(found)) / sum(map(len, trajectory.tokens))

    dense = likelihood()
    with dropped(Decoder(model), {MLP: [1]}):
        assert row["score"] == pytest.approx(dense - likelihood(), abs=2e-5)
