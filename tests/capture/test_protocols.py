"""The four protocols: exactly nothing for an unchanged model, and what pruning does, computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from cases import ENCODERS
from helpers import changes_of
from naive import CONFIDENCE, DEVIATIONS, assert_agrees, largest_logit, naive

from pipeline.capture.counterparts import capture_counterparts
from pipeline.capture.options import decision_states, probe_questions
from pipeline.common.terminal import progress
from pipeline.config.probes import PROBES
from pipeline.config.schema import PROTOCOLS
from pipeline.measure.measures import COLUMNS
from pipeline.measure.options import measure_options
from pipeline.measure.protocols import (
    FREE_RUNNING,
    INDEX,
    LAYER,
    TEACHER_FORCED,
    measure_free_running,
    measure_layers,
    measure_teacher_forced,
)
from pipeline.measure.stage import Measures, OptionMeasures
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.structure import SUBLAYERS
from pipeline.model.trajectory import Trajectory, capture_forced, capture_trajectory
from pipeline.prune.decision import Decision
from pipeline.prune.surgery import change_weights, remove_blocks
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Store
from pipeline.store.table_names import MEASURES, OPTIONS, PROMPTS, TRAJECTORIES

STEPS, LAYERS = 5, 4
TEMPERATURES = [1.0, 0.5]


def head_of(model: torch.nn.Module) -> Head:
    decoder = Decoder(model)
    bias = None if decoder.head.bias is None else decoder.head.bias.detach()
    return Head(decoder.head.weight.detach(), bias, decoder.structure.head_cap)


def assert_nothing_deviates(table: pd.DataFrame) -> None:
    assert len(table)
    for name in DEVIATIONS:
        np.testing.assert_array_equal(table[name], 1.0 if "cos" in name else 0.0, err_msg=name)
    for name in CONFIDENCE:
        assert np.isfinite(table[name]).all(), name


def assert_measured(table: pd.DataFrame, dense: torch.Tensor, pruned: torch.Tensor, head: Head) -> None:
    """A table of one sublayer or of final states against the definitions, position by position."""
    for temperature, rows in table.groupby("temperature"):
        expected = naive(dense, pruned, head, temperature)
        assert_agrees(rows, expected, max(1.0, largest_logit(dense, head, temperature)), rtol=1e-3)


@pytest.fixture
def dense(make_model, tokenizer, architecture) -> tuple[torch.nn.Module, Trajectory]:
    if architecture in ENCODERS:
        pytest.skip("writes no text")
    model = make_model(architecture, LAYERS)
    return model, capture_trajectory(model, tokenizer, PROBES[::3], STEPS, residual=True)


@pytest.mark.parametrize("masked", [False, True])
def test_an_unchanged_model_deviates_nowhere(dense, tokenizer, make_model, architecture, masked):
    """With nothing masked, and with masks that mask nothing, under every protocol and at every position."""
    model, trajectory = dense
    head, changes = head_of(model), changes_of(model, 0.0) if masked else {}
    states = capture_counterparts(model, Decision(changes=changes), trajectory, progress)
    other = make_model(architecture, LAYERS)
    for change in changes.values():
        change_weights(other, change)
    positions = len(trajectory.positions())
    for norm in (None, Decoder(model).final_norm):
        layers = measure_layers(trajectory, states, head, TEMPERATURES, progress, norm)
        assert len(layers) == positions * 2 * LAYERS * 2
        assert_nothing_deviates(layers)
    forced = measure_teacher_forced(trajectory, capture_forced(other, trajectory), head, TEMPERATURES)
    own = capture_trajectory(other, tokenizer, PROBES[::3], STEPS, residual=False)
    free = measure_free_running(trajectory, own, head, TEMPERATURES)
    for table in (forced, free):
        assert len(table) == positions * 2
        assert_nothing_deviates(table)
    questions = probe_questions(PROBES, tokenizer)
    both = (decision_states(one, questions) for one in (model, other))
    sets, tokens = measure_options(questions, *both, head, TEMPERATURES, tokenizer, seed=0)
    assert set(sets.kl) == set(sets.flip) == {0.0}
    assert set(sets.cos_p) == {1.0}
    for name in ("mass", "margin", "rank"):
        assert sets[f"{name}_dense"].equals(sets[f"{name}_pruned"].rename(f"{name}_dense"))
    assert (tokens.logp_dense == tokens.logp_pruned).all() and (tokens.rank_dense == tokens.rank_pruned).all()


def test_teacher_forced_without_the_last_block_is_the_norm_of_what_enters_it(dense):
    model, trajectory = dense
    head, decoder = head_of(model), Decoder(model)
    with torch.inference_mode():
        expected = decoder.final_norm(trajectory.residual[trajectory.before[-2]])
        remove_blocks(decoder, [LAYERS - 1])
    forced = capture_forced(model, trajectory)
    torch.testing.assert_close(forced, expected, rtol=1e-4, atol=1e-5)
    table = measure_teacher_forced(trajectory, forced, head, TEMPERATURES)
    assert list(table.columns) == [*INDEX, *COLUMNS]
    assert (set(table.protocol), set(table.layer), set(table.sublayer)) == ({TEACHER_FORCED}, {-1}, {"final"})
    assert table.kl.min() > 0
    assert_measured(table, trajectory.final, forced, head)
    once = table[table.temperature == 1.0]
    assert list(zip(once.prompt, once.step, strict=True)) == trajectory.positions()


def test_layers_are_measured_as_their_states_say(dense):
    """Pruned weights and dropped units, in the layout of every architecture."""
    model, trajectory = dense
    head = head_of(model)
    states = capture_counterparts(model, Decision(changes=changes_of(model, 0.5)), trajectory, progress)
    for counterparts in (states, None):
        table = measure_layers(trajectory, counterparts, head, TEMPERATURES, progress)
        assert list(table.columns) == [*INDEX, *COLUMNS]
        assert set(table.protocol) == {LAYER}
        for index in (0, 3, 2 * LAYERS - 1):
            one = table[(table.layer == index // 2) & (table.sublayer == SUBLAYERS[index % 2])]
            pruned = trajectory.residual[trajectory.before[index]] if counterparts is None else counterparts[index]
            assert_measured(one, trajectory.residual[trajectory.after[index]], pruned, head)


def test_free_running_compares_each_with_its_own_trajectory(make_model, tokenizer):
    model, other = make_model(), make_model()
    for change in changes_of(other, 0.5).values():
        change_weights(other, change)
    dense, pruned = (capture_trajectory(one, tokenizer, PROBES[::3], STEPS, residual=False) for one in (model, other))
    assert dense.tokens != pruned.tokens
    table = measure_free_running(dense, pruned, head_of(model), TEMPERATURES)
    assert set(table.protocol) == {FREE_RUNNING}
    assert_measured(table, dense.final, pruned.final, head_of(model))


def test_free_running_pairs_equal_steps_where_lengths_differ(make_model, tokenizer):
    model = make_model()
    probes = [PROBES[0], PROBES[4], PROBES[8]]
    short = [replace(probe, steps=steps) for probe, steps in zip(probes, (1, 4, 2), strict=True)]
    dense, pruned = (capture_trajectory(model, tokenizer, some, STEPS, residual=False) for some in (probes, short))
    table = measure_free_running(dense, pruned, head_of(model), [1.0])
    assert list(zip(table.prompt, table.step, strict=True)) == pruned.positions()
    assert_nothing_deviates(table)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Shared by whole jobs, which find there what they have in common."""
    return tmp_path_factory.mktemp("protocols")


@pytest.mark.parametrize("pruner", ["wanda", "shortgpt", "attn_drop"])
def test_sparsity_zero_of_a_whole_job_deviates_nowhere(make_settings, outputs, pruner):
    words = (f"pruner={pruner}", "sparsity=0", "capture.steps=3", "measure.temperatures=[1.0,0.3]")
    settings = make_settings(*words, outputs=outputs)
    bench = Workbench(settings, Store(settings.outputs))
    measures = bench.make(Measures)
    table = pd.read_parquet(measures.file(MEASURES))
    assert set(table.protocol) == set(PROTOCOLS) - {"options"}
    assert_nothing_deviates(table)
    options = pd.read_parquet(bench.make(OptionMeasures).file(OPTIONS))
    assert set(options.kl) == set(options.flip) == {0.0}
    sides = pd.read_parquet(measures.file(TRAJECTORIES))
    assert sides.dense_token.equals(sides.pruned_token.rename("dense_token"))
    assert set(pd.read_parquet(measures.file(PROMPTS)).prompt) == {probe.name for probe in PROBES}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_alone_is_what_it_is_among_all(make_settings, outputs, protocol):
    every = make_settings("pruner=wanda", "sparsity=0.5", outputs=outputs)
    alone = make_settings("pruner=wanda", "sparsity=0.5", f"capture.protocols=[{protocol}]", outputs=outputs)
    whole, part = (Workbench(one, Store(one.outputs)) for one in (every, alone))
    if protocol == "options":
        found, expected = (pd.read_parquet(bench.make(OptionMeasures).file(OPTIONS)) for bench in (part, whole))
        assert not (part.make(Measures).path / MEASURES).exists()
    else:
        found, expected = (pd.read_parquet(bench.make(Measures).file(MEASURES)) for bench in (part, whole))
        expected = expected[expected.protocol == protocol].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(("pruner", "kinds"), [("attn_drop", {"attention"}), ("mlp_drop", {"mlp"}), ("shortgpt", None)])
def test_a_pruner_of_one_kind_of_sublayer_is_measured_there_alone(make_settings, outputs, pruner, kinds):
    words = (f"pruner={pruner}", "sparsity=1", "capture.protocols=[layer]", "measure.readout=final_norm")
    settings = make_settings(*words, outputs=outputs)
    table = pd.read_parquet(Workbench(settings, Store(settings.outputs)).make(Measures).file(MEASURES))
    assert set(table.sublayer) == (kinds or set(SUBLAYERS))
    assert table.kl.min() > 0
