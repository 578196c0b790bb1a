"""Captured trajectories and counterparts, against passes without them, on every architecture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import ENCODERS
from helpers import changes_of

from pipeline.capture.counterparts import capture_counterparts, load_counterparts, save_counterparts
from pipeline.common.terminal import progress
from pipeline.config.probes import PROBES, encode
from pipeline.measure.protocols import measure_free_running, measure_layers, side_by_side
from pipeline.model import trajectory as trajectory_module
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.residual import layout, tap
from pipeline.model.structure import SUBLAYERS
from pipeline.model.trajectory import Trajectory, capture_forced, capture_trajectory, forwards
from pipeline.prune.decision import Change, Decision
from pipeline.prune.surgery import change_weights

STEPS = 6


@pytest.fixture
def dense(make_model, tokenizer, architecture) -> tuple[torch.nn.Module, Trajectory]:
    if architecture in ENCODERS:
        pytest.skip("writes no text")
    model = make_model(architecture)
    return model, capture_trajectory(model, tokenizer, PROBES[::3], STEPS, residual=True)


def test_probes_are_twelve_in_three_formats(tokenizer):
    assert len({probe.name for probe in PROBES}) == len({probe.text for probe in PROBES}) == 12
    formats = ["choice"] * 4 + ["arithmetic"] * 4 + ["open"] * 4
    assert [probe.format for probe in PROBES] == [probe.name.split("-")[0] for probe in PROBES] == formats
    for probe in PROBES:
        text = tokenizer.decode(encode(probe, tokenizer))
        assert text == probe.prompt
        assert all(f"{letter}. {option}" in text for letter, option in zip("ABCD", probe.options, strict=False))
        assert (len(probe.options), probe.answer is None) == ((4, False) if probe.format == "choice" else (0, True))


def test_the_parallel_pass_sees_what_step_by_step_decoding_sees(dense):
    """Each captured state is that of a pass without later tokens, and predicts the token that was generated there."""
    model, trajectory = dense
    row = 0
    for prompt, tokens in zip(trajectory.prompts, trajectory.tokens, strict=True):
        for t, token in enumerate(tokens):
            with torch.inference_mode():
                state = (
                    Decoder(model).base(torch.tensor([prompt + tokens[:t]]), use_cache=False).last_hidden_state[0, -1]
                )
            torch.testing.assert_close(trajectory.final[row], state, rtol=1e-4, atol=1e-5)
            assert int((state @ Decoder(model).head.weight.detach().T).argmax()) == token
            row += 1
    assert row == len(trajectory.final) == len(trajectory.positions())


def test_each_probe_is_continued_as_far_as_it_says(make_model, tokenizer):
    probes = [replace(PROBES[0], steps=2), PROBES[4], replace(PROBES[8], steps=99)]
    trajectory = capture_trajectory(make_model(), tokenizer, probes, STEPS, residual=True)
    assert [len(row) for row in trajectory.tokens] == [len(row) for row in trajectory.texts] == [2, STEPS, STEPS]
    assert trajectory.positions()[:3] == [(PROBES[0].name, 0), (PROBES[0].name, 1), (PROBES[4].name, 0)]
    assert len(trajectory.final) == trajectory.residual.shape[1] == len(trajectory.positions()) == 2 + 2 * STEPS


def test_more_prompts_than_go_through_at_once_are_captured_alike(make_model, tokenizer, monkeypatch):
    """Other shapes round otherwise, and change nothing else."""
    model, probes = make_model(), PROBES[:7]
    whole = capture_trajectory(model, tokenizer, probes, STEPS, residual=True)
    forced = capture_forced(model, whole)
    decision = Decision(mlp=(1,), changes=changes_of(model, 0.5))
    states = capture_counterparts(model, decision, whole, progress)
    monkeypatch.setattr(trajectory_module, "BATCH", 3)
    cut = capture_trajectory(model, tokenizer, probes, STEPS, residual=True)
    assert (cut.tokens, cut.texts, cut.positions()) == (whole.tokens, whole.texts, whole.positions())
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(cut.final, whole.final, **close)
    torch.testing.assert_close(cut.residual, whole.residual, **close)
    torch.testing.assert_close(capture_forced(model, whole), forced, **close)
    torch.testing.assert_close(capture_counterparts(model, decision, whole, progress), states, **close)
    assert torch.equal(capture_forced(model, cut), cut.final)


@pytest.mark.parametrize("lengths", [[1], [9] * 40, [2, 3, 3, 4, 9, 9, 30], [30, 2, 2, 2, 30], list(range(1, 60))])
def test_tight_passes_hold_everything_in_order_and_little_padding(lengths):
    tokens = [[1] * length for length in lengths]
    trajectory = Trajectory(
        names=[], steps=60, prompts=[[1]] * len(lengths), tokens=tokens, texts=[], final=torch.empty(0), residual=None
    )
    passes = list(forwards(trajectory, tight=True))
    assert [row for part in passes for row in part.tokens] == tokens
    for part in passes:
        assert len(part.tokens) <= 16 and part.width == 1 + max(map(len, part.tokens))
        assert part.ids().numel() <= 1.2 * sum(1 + len(row) for row in part.tokens)


def test_layer_protocol_of_pruned_weights_replaces_one_sublayer_on_the_dense_context(dense, make_model, architecture):
    """By brute force: put one pruned sublayer into a dense copy, and read the stream after it."""
    model, trajectory = dense
    changes = changes_of(model, 0.5)
    states = capture_counterparts(model, Decision(changes=changes), trajectory, progress)
    decoder, plan = Decoder(model), layout(Decoder(model))
    for index in (0, 3, len(states) - 1):
        copy = make_model(architecture)
        layer, kind = divmod(index, 2)[0], SUBLAYERS[index % 2]
        masks = {n: m for n, m in changes[layer].masks.items() if decoder.belongs(n, layer, kind)}
        assert masks
        change_weights(copy, Change(masks))
        seen: dict[int, torch.Tensor] = {}
        row = 0
        for prompt, tokens in zip(trajectory.prompts, trajectory.tokens, strict=True):
            with torch.inference_mode(), tap(Decoder(copy), lambda i, x, seen=seen: seen.update({i: x})):
                Decoder(copy).base(torch.tensor([prompt + tokens]), use_cache=False)
            expected = seen[plan.after[index]][0, len(prompt) - 1 : len(prompt) - 1 + len(tokens)]
            torch.testing.assert_close(states[index, row : row + len(tokens)], expected, rtol=1e-4, atol=1e-5)
            row += len(tokens)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in decoder.model.modules())
    fresh = make_model(architecture)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


def test_layer_protocol_of_changed_weights_leaves_the_stream_as_it_was_at_dropped_units(dense):
    model, trajectory = dense
    changes = changes_of(model, 0.5)
    changed = capture_counterparts(model, Decision(changes=changes), trajectory, progress)
    both = Decision(blocks=(1,), attention=(0,), mlp=(2,), changes=changes)
    states = capture_counterparts(model, both, trajectory, progress)
    gone, plan = {0, 2, 3, 5}, layout(Decoder(model))
    for index, state in enumerate(states):
        expected = trajectory.residual[plan.before[index]] if index in gone else changed[index]
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(state, trajectory.residual[plan.after[index]])


def test_layer_protocol_of_dropped_units_compares_with_the_stream_before(dense):
    model, trajectory = dense
    head = Head(Decoder(model).head.weight.detach())
    table = measure_layers(trajectory, None, head, [1.0], progress)
    assert set(table.sublayer) == set(SUBLAYERS)
    one = table[(table.layer == 2) & (table.sublayer == "mlp")].reset_index(drop=True)
    before, after = trajectory.residual[trajectory.before[5]], trajectory.residual[trajectory.after[5]]
    np.testing.assert_allclose(one.cos_h, torch.cosine_similarity(after, before), rtol=1e-5)
    assert list(zip(one.prompt, one.step, strict=True)) == trajectory.positions()


def test_free_running_compares_equal_steps_and_ends_with_the_shorter(dense):
    model, long = dense
    kept = [i for i, (_, step) in enumerate(long.positions()) if step < 3]
    tokens, texts = ([row[:3] for row in rows] for rows in (long.tokens, long.texts))
    short = replace(long, tokens=tokens, texts=texts, final=long.final[kept], residual=None)
    head = Head(Decoder(model).head.weight.detach())
    for table in (measure_free_running(long, short, head, [1.0]), measure_free_running(short, long, head, [1.0])):
        assert table.step.max() == 2
        assert (table.kl == 0).all()
    tokens = side_by_side(long, short)
    assert (tokens[tokens.step >= 3].pruned_token == -1).all()
    assert (tokens[tokens.step < 3].pruned_token == tokens[tokens.step < 3].dense_token).all()


def test_a_trajectory_survives_the_disk(dense, tmp_path):
    _, trajectory = dense
    (tmp_path / "t").mkdir()
    trajectory.save(tmp_path / "t")
    loaded = Trajectory.load(tmp_path / "t")
    for name in ("names", "steps", "prompts", "tokens", "texts", "width"):
        assert getattr(loaded, name) == getattr(trajectory, name), name
    assert (tuple(loaded.before), tuple(loaded.after)) == (trajectory.before, trajectory.after)
    assert torch.equal(loaded.final, trajectory.final)
    assert torch.equal(loaded.residual, trajectory.residual)
    save_counterparts(trajectory.residual, tmp_path)
    assert torch.equal(load_counterparts(tmp_path), trajectory.residual)
