"""Float32 products on bfloat16 units: only where nothing is lost."""

import pytest
import torch

from pipeline.model import bfloat16
from pipeline.model.head import Head

MODES = torch.backends.mkldnn.matmul


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("states", "weight", "on_units"),
    [("bfloat16", "bfloat16", True), ("float32", "bfloat16", False), ("bfloat16", "float32", False)],
)
def test_logits_lose_nothing_on_bfloat16_units(monkeypatch, states, weight, on_units, bias):
    monkeypatch.setattr(bfloat16, "is_faster", lambda device: True)
    x = torch.randn(64, 300).to(getattr(torch, states)).float()
    w = torch.randn(500, 300).to(getattr(torch, weight)).float()
    head, modes = Head(w, torch.randn(500) if bias else None), []
    for name in ("mm", "addmm"):
        product = getattr(torch, name)
        monkeypatch.setattr(
            torch, name, lambda *a, _do=product, **k: (modes.append(MODES.fp32_precision), _do(*a, **k))[1]
        )
    z = head.logits(x)
    exact = x.double() @ w.double().T + (head.bias.double() if bias else 0)
    assert (z.double() - exact).abs().max() < 1e-5 * exact.abs().max()
    assert modes == ["bf16"] if on_units else "bf16" not in modes
    assert MODES.fp32_precision != "bf16"


def test_the_mode_of_products_is_restored_after_an_error(monkeypatch):
    monkeypatch.setattr(bfloat16, "is_faster", lambda device: True)
    before = MODES.fp32_precision
    with pytest.raises(RuntimeError), bfloat16.exact_products(torch.device("cpu"), lambda: True):
        assert MODES.fp32_precision == "bf16"
        raise RuntimeError
    assert MODES.fp32_precision == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_values_of_bfloat16_are_told_from_others(dtype):
    x = torch.randn(40, 3).bfloat16().to(dtype)
    assert bfloat16.holds_bfloat16(x) and bfloat16.holds_bfloat16(x.bfloat16())
    x[3, 1] = 1 + 2**-9
    assert not bfloat16.holds_bfloat16(x)


def test_factors_are_looked_at_only_where_it_would_help(monkeypatch):
    looked = []
    for faster in (False, True):
        monkeypatch.setattr(bfloat16, "is_faster", lambda device, _faster=faster: _faster)
        with bfloat16.exact_products(torch.device("cpu"), lambda: bool(looked.append(1))):
            assert MODES.fp32_precision != "bf16"
    assert len(looked) == 1


def test_a_large_tensor_is_looked_at_in_parts():
    x = torch.randn(3000, 1000).bfloat16().float()
    assert bfloat16.holds_bfloat16(x) and bfloat16.holds_bfloat16(x.T)
    x[-1, -1] = 1 + 2**-9
    assert not bfloat16.holds_bfloat16(x)
