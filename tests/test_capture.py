from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.capture import Trajectory, capture_counterparts, capture_trajectory, generate
from pipeline.console import progress
from pipeline.decoder import ARCHITECTURES, SUBLAYERS, Decoder
from pipeline.measure import measure_free_running, measure_layers, side_by_side
from pipeline.measures.compare import COLUMNS, Head
from pipeline.probes import PROBES, encode
from pipeline.pruners.decision import Change
from pipeline.residual import layout, tap
from pipeline.surgery import change_weights

STEPS = 6


@pytest.fixture
def dense(make_model, tokenizer, architecture) -> tuple[torch.nn.Module, Trajectory]:
    if ARCHITECTURES[architecture].encoder:
        pytest.skip("writes no text")
    model = make_model(architecture)
    return model, capture_trajectory(model, tokenizer, PROBES[::3], STEPS, residual=True)


def changes_of(model, share: float) -> dict[int, Change]:
    """Random masks of every matrix, by block."""
    generator, decoder = torch.Generator().manual_seed(5), Decoder(model)
    return {
        layer: Change(
            {
                name: torch.rand(model.get_parameter(name).shape, generator=generator) < share
                for name in sorted({w.parameter for w in decoder.linears(layer)})
            }
        )
        for layer in range(len(decoder.blocks))
    }


def test_probes_are_twelve_in_three_formats(tokenizer):
    assert len({probe.name for probe in PROBES}) == len({probe.text for probe in PROBES}) == 12
    assert [probe.name.split("-")[0] for probe in PROBES] == ["choice"] * 4 + ["arithmetic"] * 4 + ["open"] * 4
    assert tokenizer.decode(encode(PROBES[0], tokenizer)) == PROBES[0].text


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


def test_generation_stops_at_end_of_text(make_model, tokenizer):
    model = make_model()
    prompts = [encode(probe, tokenizer) for probe in PROBES[:3]]
    free = generate(model, tokenizer, prompts, STEPS)
    model.generation_config.eos_token_id = [free[0][2]]
    stopped = generate(model, tokenizer, prompts, STEPS)
    assert stopped[0] == free[0][: free[0].index(free[0][2]) + 1]


def test_layer_protocol_of_pruned_weights_replaces_one_sublayer_on_the_dense_context(dense, make_model, architecture):
    """By brute force: put one pruned sublayer into a dense copy, and read the stream after it."""
    model, trajectory = dense
    changes = changes_of(model, 0.5)
    states = capture_counterparts(model, changes, trajectory, STEPS, progress)
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


@pytest.mark.parametrize("masked", [False, True])
def test_an_unchanged_model_deviates_nowhere(dense, tokenizer, make_model, architecture, masked):
    """With nothing masked, and with masks that mask nothing, every position measures cosine 1 and KL 0 exactly."""
    model, trajectory = dense
    changes = changes_of(model, 0.0) if masked else {}
    head = Head(Decoder(model).head.weight.detach())
    states = capture_counterparts(model, changes, trajectory, STEPS, progress)
    other = capture_trajectory(make_model(architecture), tokenizer, PROBES[::3], STEPS, residual=False)
    layers = measure_layers(trajectory, states, head, [1.0, 0.5], progress)
    free = measure_free_running(trajectory, other, head, [1.0])
    positions = len(trajectory.positions())
    assert len(layers) == positions * 8 * 2
    assert len(free) == positions
    for table in (layers, free):
        for name in COLUMNS:
            np.testing.assert_array_equal(table[name], 1.0 if "cos" in name else 0.0, err_msg=name)


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
    short = Trajectory(
        long.names,
        long.prompts,
        [row[:3] for row in long.tokens],
        [row[:3] for row in long.texts],
        long.final[kept],
        None,
    )
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
    assert loaded.tokens == trajectory.tokens
    assert loaded.positions() == trajectory.positions()
    assert torch.equal(loaded.residual, trajectory.residual)
