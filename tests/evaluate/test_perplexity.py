"""Perplexity by overlapping windows, against one pass over each window by hand."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.evaluate.perplexity import HeldOutText, perplexity_row, window_losses


def by_hand(model, ids, window, stride):
    """Every token but the first once, from the first window that reaches it."""
    losses, reached = {}, 1
    for end in [*range(window, len(ids), stride), len(ids)]:
        start = max(end - window, 0)
        with torch.inference_mode():
            logp = model(ids[None, start:end]).logits[0].double().log_softmax(-1)
        for at in range(reached, end):
            losses[at] = -logp[at - start - 1, ids[at]]
        reached = end
    return torch.stack([losses[at] for at in range(1, len(ids))])


@pytest.mark.parametrize(("tokens", "window", "stride"), [(100, 32, 16), (97, 32, 31), (70, 64, 1), (65, 64, 7)])
def test_windows_give_each_token_once(make_model, tokens, window, stride):
    model = make_model()
    ids = torch.randint(0, 250, (tokens,), generator=torch.Generator().manual_seed(0))
    found = torch.cat(window_losses(model, ids, window, stride))
    assert found.dtype == torch.float64 and found.shape == (tokens - 1,)
    torch.testing.assert_close(found, by_hand(model, ids, window, stride), rtol=0, atol=2e-5)


def test_every_architecture_has_the_perplexity_of_a_pass_over_each_window(architecture, make_model, tokenizer):
    model, text = make_model(architecture), HeldOutText("stories", "text", 96, 64, 32)
    if architecture == "bert":
        return
    row = perplexity_row(model, tokenizer, text).iloc[0]
    assert row.kind == "perplexity" and not row.higher_is_better and row.n == 95
    mean = float(by_hand(model, text.ids(tokenizer), 64, 32).mean())
    assert math.log(row.value) == pytest.approx(mean, rel=1e-5, abs=2e-5)
    assert 0 < row.stderr < row.value


def test_the_standard_error_is_that_of_windows(make_model, tokenizer):
    model, text = make_model(), HeldOutText("stories", "text", 512, 64, 32)
    row = perplexity_row(model, tokenizer, text).iloc[0]
    means = torch.stack([window.mean() for window in window_losses(model, text.ids(tokenizer), 64, 32)])
    assert row.stderr == pytest.approx(row.value * float(means.std()) / math.sqrt(len(means)))


def test_a_text_of_ones_own(make_model, tokenizer, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("A text of its own. " * 20)
    row = perplexity_row(make_model(), tokenizer, HeldOutText(str(path), "text", 200, 64, 32)).iloc[0]
    assert (row.task, row.n) == ("mine", 199)
    first = HeldOutText(str(path), "text", 200, 64, 32).identity()
    path.write_text("Another text. " * 40)
    assert HeldOutText(str(path), "text", 200, 64, 32).identity() != first


def test_a_short_text_and_a_long_window_are_refused(make_model, tokenizer, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("Too short.")
    with pytest.raises(ValueError, match="fewer than one window of 64"):
        perplexity_row(make_model(), tokenizer, HeldOutText(str(path), "text", 200, 64, 32))
    model = make_model()
    model.config.max_position_embeddings = 32
    with pytest.raises(ValueError, match="more than the model's 32 positions"):
        perplexity_row(model, tokenizer, HeldOutText("stories", "text", 200, 64, 32))
