"""Which weight matrices a block has: also stacked in one parameter, but not routers, nor what no text passes."""

from __future__ import annotations

import pytest
import torch
from helpers import context_for, pruner_of
from torch import nn
from torch.nn import functional as F

from pipeline.config.sparsity import parse
from pipeline.inspect.describe import describe, lines
from pipeline.model.decoder import Decoder
from pipeline.model.matrix_forms import form_of
from pipeline.model.proof import prove
from pipeline.model.short_pass import tokens
from pipeline.model.sources.tiny import tiny_model
from pipeline.prune.accounting import account
from pipeline.prune.decision import Decision
from pipeline.prune.methods.masks import weight_masks

STACKED, HEADS = torch.randn(12, 3), torch.randn(6, 2, 4)


@pytest.mark.parametrize(
    ("whole", "used", "form"),
    [
        (STACKED, STACKED, (12, 3)),
        (STACKED, STACKED.T, (12, 3)),
        (STACKED, STACKED[4:8], (3, 4, 3)),
        (STACKED, STACKED.view(3, 4, 3)[2].T, (3, 4, 3)),
        # Not a multiple of its own size from the beginning, parts that are not equal, some of the columns.
        (STACKED, STACKED[2:6], (12, 3)),
        (STACKED, STACKED[:5], (12, 3)),
        (STACKED, STACKED[:, :2], (12, 3)),
        (HEADS, HEADS.view(1, 6, 8), (6, 8)),
        (HEADS, HEADS.permute(1, 2, 0).reshape(1, 8, 6), (6, 8)),
        (HEADS, HEADS[2], (6, 2, 4)),
        (HEADS, HEADS[:3].view(3, 8), (6, 2, 4)),
        (HEADS.mT, HEADS.mT, (6, 4, 2)),
    ],
)
def test_the_form_of_a_parameter_is_that_of_the_products_with_it(whole, used, form):
    assert form_of(whole, used) == form


def stacked(rows: int) -> type[nn.Module]:
    """Return the class of an MLP that multiplies with slices of ``rows`` rows, one after the other."""

    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(12, 64) / 8)
            self.out = nn.Linear(12, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, rest = self.weight[:rows], self.weight[rows:]
            return self.out(torch.cat([F.linear(x, first), F.linear(x, rest)], -1).relu())

    return Stacked


@pytest.mark.parametrize(("rows", "shapes"), [(6, [(6, 64), (6, 64)]), (4, [(12, 64)])])
def test_equal_slices_of_a_parameter_are_matrices_and_others_are_not(make_model, rows, shapes):
    model = make_model()
    for block in model.model.layers:
        block.mlp = stacked(rows)()
    found = [linear for linear in Decoder(model).linears(1) if linear.parameter.endswith("mlp.weight")]
    assert [tuple(linear.weight.shape) for linear in found] == shapes
    whole = model.model.layers[1].mlp.weight
    masks = weight_masks(found, lambda name, weight: weight > 0)
    assert torch.equal(masks["model.layers.1.mlp.weight"], whole > 0)


def test_experts_in_one_matrix_are_pruned_by_what_each_is_given():
    """Wanda scores the last matrix of an expert by its hidden units: one that is always zero goes first."""
    model, pruner = tiny_model("dbrx"), pruner_of("wanda")
    decoder = Decoder(model)
    linears = [linear for linear in decoder.linears(0) if linear.expert is not None]
    assert len({linear.name for linear in linears}) == 12
    up, down = (next(w for w in linears if w.name.endswith(f"{name}.1")) for name in ("v1", "w2"))
    up.weight[5:25] = 0
    down.weight[:, 5:25] = 100
    decision = pruner.decide(decoder, parse(0.25), context_for(pruner, model))
    mask = down.view(decision.changes[0].masks[down.parameter])
    assert mask.sum(1).tolist() == [14] * len(mask) and mask.sum() == mask[:, 5:25].sum()


@pytest.mark.parametrize("kind", ["dbrx", "jetmoe", "longcat_flash", "hunyuan_v1_moe", "mixtral"])
def test_routers_are_left_alone(kind):
    decoder = Decoder(tiny_model(kind))
    names = [linear.name for layer in range(len(decoder.blocks)) for linear in decoder.linears(layer)]
    assert names and not [name for name in names if "router" in name or ".gate." in name]


@pytest.mark.parametrize("kind", ["bart", "prophetnet"])
@torch.no_grad()
def test_an_idle_cross_attention_is_neither_pruned_nor_counted_but_goes_with_its_block(kind):
    model = tiny_model(kind)
    decoder = Decoder(model)
    (first, *_) = decoder.structure.blocks
    assert len(first.idle) == 2
    idle = {f"{decoder.structure.name_of(0, path)}." for path in first.idle}
    assert not [linear for linear in decoder.linears(0) if linear.parameter.startswith(tuple(idle))]
    assert not prove(model)
    expected = model(tokens(model), use_cache=False)[0]
    size = sum(p.numel() for p in decoder.blocks[0].parameters())
    unused = [p for path in first.idle for p in decoder.blocks[0].get_submodule(path).parameters()]
    for parameter in unused:
        parameter.fill_(torch.nan)
    assert torch.equal(model(tokens(model), use_cache=False)[0], expected)
    everything = account(decoder, Decision(blocks=tuple(range(len(decoder.blocks)))))
    assert everything.achieved == 1 and set(everything.achieved_by_layer) == {1}
    whole = sum(p.numel() for p in model.parameters())
    assert account(decoder, Decision(blocks=(0,))).parameters == whole - size
    whole_mlp = account(decoder, Decision(mlp=(0,)))
    mlp = whole - whole_mlp.parameters
    assert whole_mlp.achieved_by_layer[0] == pytest.approx(mlp / (size - sum(p.numel() for p in unused)))


def test_a_description_names_what_text_does_not_pass():
    (line,) = [line for line in lines(describe(tiny_model("bart"))) if "text does not pass" in line]
    assert line == "  text does not pass encoder_attn, encoder_attn_layer_norm: not pruned, not counted"


def test_modules_that_tokens_choose_between_are_not_idle(make_model):
    """A few tokens may choose one of a list, and others another."""

    class Choice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.options = nn.ModuleList(nn.Linear(64, 64) for _ in range(2))
            self.never = nn.Linear(64, 64)
            self.by_hand = nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.options[1](x @ self.by_hand.weight)

    model = make_model()
    for block in model.model.layers:
        block.mlp = Choice()
    decoder = Decoder(model)
    assert {block.idle for block in decoder.structure.blocks} == {("mlp.never",)}
    names = [linear.name.removeprefix("model.layers.1.mlp.") for linear in decoder.linears(1)][4:]
    assert names == ["options.0.weight", "options.1.weight", "by_hand.weight"]
    assert prove(model)[1] == ("mlp.options.0",)
