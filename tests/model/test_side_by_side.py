"""Blocks whose modules lie in several lists of the model side by side."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipeline.model.decoder import Decoder
from pipeline.model.side_by_side import Runner, steps_of
from pipeline.model.sources.tiny import tiny_model
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import apply

IDS = torch.arange(3, 19)[None]


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(IDS, use_cache=False).logits


def names(model: nn.Module) -> list[str]:
    return list(model.state_dict())


@pytest.fixture
def model():
    return tiny_model("xlm", layers=3)


def test_a_model_computes_and_stores_the_same_once_its_blocks_are_found(model):
    before, stored = logits(model), names(model)
    assert [step.adds for step in Decoder(model).structure.steps] == [True, False, True, False]
    entered: list[int] = []
    for place, block in enumerate(Decoder(model).blocks):
        block.register_forward_pre_hook(lambda *_, place=place: entered.append(place))
    assert torch.equal(logits(model), before) and names(model) == stored
    assert entered == [0, 1, 2]


def test_parameters_have_the_names_that_they_have_in_the_model(model):
    decoder = Decoder(model)
    found = [linear.parameter for layer in range(3) for linear in decoder.linears(layer)]
    matrices = [name for name, value in model.named_parameters() if value.ndim == 2 and "embed" not in name]
    assert sorted(found) == sorted(name for name in matrices if "pred_layer" not in name)
    assert decoder.belongs("transformer.ffns.1.lin1.weight", 1, "mlp")
    assert not decoder.belongs("transformer.ffns.1.lin1.weight", 0, "mlp")


def test_a_copy_is_pruned_alone(model):
    before = logits(model)
    Decoder(model).structure  # noqa: B018 its blocks are found before it is copied
    copied = copy.deepcopy(model)
    apply(copied, Decision(attention=(0,), blocks=(1,)))
    assert (len(copied.transformer.ffns), copied.transformer.n_layers, copied.config.n_layers) == (2, 2, 2)
    assert not any(name.startswith("transformer.attentions.0") for name in names(copied))
    assert torch.equal(logits(model), before) and not torch.allclose(logits(copied), before)


def test_an_error_in_a_block_leaves_the_model_as_it_was(model):
    before = logits(model)
    block = Decoder(model).blocks[1]
    hook = block.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyError("stopped")))
    with pytest.raises(KeyError, match="stopped"):
        logits(model)
    hook.remove()
    assert torch.equal(logits(model), before) and all(
        type(each) is nn.LayerNorm for each in model.transformer.layer_norm1
    )


class TwoLists(nn.Module):
    """Adds the outputs of one list to the stream, times ``scale``, and takes the norms of the other one."""

    def __init__(self, scale: float, turns: bool) -> None:
        super().__init__()
        self.scale, self.turns = scale, turns
        self.mixers = nn.ModuleList([nn.Linear(8, 8) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(8) for _ in range(2)])

    def forward(self, ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
        x = torch.nn.functional.one_hot(ids % 8, 8).float()
        pairs = list(zip(self.mixers, self.norms, strict=True))
        for mixer, norm in pairs if self.turns else ():
            x = norm(x + self.scale * mixer(x))
        for mixer in () if self.turns else self.mixers:
            x = x + mixer(x)
        for norm in () if self.turns else self.norms:
            x = norm(x)
        return x


@pytest.mark.parametrize(("scale", "turns", "adds"), [(1.0, True, [True, False]), (0.5, True, []), (1.0, False, [])])
def test_lists_are_blocks_only_if_their_modules_are_given_the_stream_by_turns(scale, turns, adds):
    torch.manual_seed(0)
    model = TwoLists(scale, turns)
    with torch.no_grad():
        steps = steps_of(model, IDS, "", ("mixers", "norms"))
        assert [step.adds for step in steps] == adds
        if steps:
            plain = model(IDS, use_cache=False)
            Runner(model, steps)
            assert torch.equal(model(IDS, use_cache=False), plain)
