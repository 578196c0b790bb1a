"""Whatever way a block multiplies with a matrix, the input of the product is seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.model.decoder import Decoder, Linear
from pipeline.model.experts import one_expert_at_a_time
from pipeline.model.linear_inputs import linear_inputs
from pipeline.model.sources.tiny import model_of, tiny_config

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
SEVERAL = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
ZERO = torch.zeros(5, 4)


def matrix(stored: torch.Tensor, transposed: bool, expert: int | None = None) -> Linear:
    module = nn.Module()
    module.weight = nn.Parameter(stored)
    return Linear(f"w{expert or 0}", "weight", module, "weight", transposed, expert)


# Forms of x Wᵀ for W (out, in), and of x W for W that is stored as (in, out).
ONE: list[tuple[bool, Callable[[torch.Tensor], torch.Tensor]]] = [
    (False, lambda w: F.linear(X, w)),
    (False, lambda w: X @ w.T),
    (False, lambda w: torch.mm(X, w.t())),
    (False, lambda w: torch.addmm(ZERO, X, w.T)),
    (False, lambda w: (w @ X.T).T),
    (False, lambda w: torch.matmul(w, X.T).T),
    (True, lambda w: X @ w),
    (True, lambda w: torch.addmm(ZERO, X, w)),
    (True, lambda w: (w.T @ X.T).T),
]
SIDE_BY_SIDE: list[tuple[bool, Callable[[torch.Tensor], torch.Tensor]]] = [
    (False, lambda w: torch.bmm(SEVERAL, w.transpose(1, 2))),
    (False, lambda w: (w @ SEVERAL.mT).mT),
    (False, lambda w: (w[:, None] @ SEVERAL[:, None].mT).mT[:, 0]),
    (False, lambda w: torch.stack([SEVERAL[e] @ w[e].T for e in range(2)])),
    (True, lambda w: torch.bmm(SEVERAL, w)),
    (True, lambda w: SEVERAL @ w),
    (True, lambda w: torch.baddbmm(torch.zeros(2, 1, 4), SEVERAL, w)),
    (True, lambda w: torch.stack([SEVERAL[e] @ w[e] for e in range(2)])),
]


@pytest.mark.parametrize(("transposed", "product"), ONE)
@torch.no_grad()
def test_a_product_with_a_matrix_is_seen(transposed, product):
    linear = matrix(torch.randn(3, 4) if transposed else torch.randn(4, 3), transposed)
    assert_seen([linear], lambda: product(linear.module.weight), [X])


@pytest.mark.parametrize(("transposed", "product"), SIDE_BY_SIDE)
@torch.no_grad()
def test_products_with_several_matrices_side_by_side_are_seen(transposed, product):
    stored = torch.randn(2, 3, 4) if transposed else torch.randn(2, 4, 3)
    first = matrix(stored, transposed, 0)
    linears = [first, Linear("w1", "weight", first.module, "weight", transposed, 1)]
    assert_seen(linears, lambda: product(first.module.weight), list(SEVERAL))


def assert_seen(linears: list[Linear], compute: Callable[[], torch.Tensor], inputs: list[torch.Tensor]) -> None:
    plain = compute()
    expected = torch.stack([x @ w.weight.T for x, w in zip(inputs, linears, strict=True)]).view_as(plain)
    torch.testing.assert_close(plain, expected)
    found: dict[str, torch.Tensor] = {}
    with linear_inputs(linears, lambda names, x: found.update(dict.fromkeys(names, x))):
        assert torch.equal(compute(), plain)
    assert found.keys() == {linear.name for linear in linears}
    for linear, x in zip(linears, inputs, strict=True):
        assert torch.equal(found[linear.name], x)
    with linear_inputs(linears, lambda names, x: None, skip=[linear.name for linear in linears]):
        assert not compute().any()


def test_other_products_and_the_arguments_of_a_product_by_name_are_let_through():
    other = torch.randn(2, 3, 4)
    found: list[str] = []
    with linear_inputs([matrix(torch.randn(4, 3), False)], lambda names, x: found.extend(names)):
        assert (X @ X.T).shape == (5, 5) and (X @ X[0]).shape == (5,) and (X[0] @ X[0]).ndim == 0
        torch.baddbmm(torch.zeros(2, 5, 4), batch1=SEVERAL, batch2=other)
    assert not found


@pytest.mark.parametrize(
    "kind", ["falcon", "mamba", "recurrent_gemma", "gpt_oss", "llama4_text", "aria_text", "zamba", "dbrx"]
)
@torch.no_grad()
def test_models_that_write_their_products_out_are_seen_entirely(kind):
    model = model_of(tiny_config(kind))
    decoder = Decoder(model)
    linears = decoder.linears(0)
    found: dict[str, int] = {}
    with one_expert_at_a_time(model), linear_inputs(linears, lambda n, x: found.update(dict.fromkeys(n, x.shape[-1]))):
        model(torch.arange(200)[None], use_cache=False)
    assert found == {linear.name: linear.weight.shape[1] for linear in linears}


@pytest.mark.parametrize("kind", ["rwkv", "zamba"])
def test_only_what_is_multiplied_with_is_a_matrix(kind):
    """Three dimensions alone do not make a parameter the matrices of experts."""
    decoder = Decoder(model_of(tiny_config(kind)))
    parameters = dict(decoder.blocks[0].named_parameters())
    taken = {linear.parameter.removeprefix(f"{decoder.blocks_name}.0.") for linear in decoder.linears(0)}
    assert any(p.ndim == 3 and name not in taken and "conv" not in name for name, p in parameters.items())
    assert not [name for name in taken if "time_mix" in name or "A_log" in name]
