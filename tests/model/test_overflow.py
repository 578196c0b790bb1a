"""What overflows is no result: every stage says so in one sentence, with the dtype that helps."""

from __future__ import annotations

import pytest
import torch
from helpers import calibration_batches, context_for, pruner_of
from lm_eval.api.instance import Instance

from pipeline.capture.counterparts import capture_counterparts
from pipeline.capture.options import decision_states, probe_questions
from pipeline.common.terminal import progress
from pipeline.config.probes import PROBES
from pipeline.config.sparsity import parse
from pipeline.evaluate.language_model import InMemoryLM
from pipeline.evaluate.perplexity import window_losses
from pipeline.measure.options import measure_options
from pipeline.measure.protocols import measure_layers, measure_teacher_forced
from pipeline.model.cached_rows import span
from pipeline.model.continuations import continued, read
from pipeline.model.decoder import Decoder
from pipeline.model.finite import check_finite, check_scores, check_values, is_finite
from pipeline.model.generation import Decoding, generate
from pipeline.model.head import Head
from pipeline.model.proof import prove
from pipeline.model.sources.base import resolve_dtype
from pipeline.model.sources.random import RandomModel
from pipeline.model.trajectory import capture_forced, capture_trajectory
from pipeline.prune.decision import Decision
from pipeline.prune.workbench import Workbench
from pipeline.run.job import run_job
from pipeline.store.artifacts import Store
from pipeline.store.records import FAILED

REFUSED = r"not finite.*\(dtype=float32\)"
CAPTURED = r"not finite.*\(capture\.dtype=float32\)"


def spoil(model: torch.nn.Module) -> torch.nn.Module:
    """Let the states after the second block leave float16, as those of models do that were trained in bfloat16."""
    Decoder(model).blocks[1].mlp.down_proj.weight.data.fill_(6e4)
    return model


@pytest.fixture
def overflowing(tmp_path):
    """A model whose states are infinite in float16 alone."""
    store = Store(tmp_path / "store")
    return lambda dtype=torch.float16: spoil(RandomModel("random", layers=4).load(dtype, store))


@pytest.fixture
def asked():
    requests = [("The sky is", " blue"), ("The sky is", " green"), ("One", " two")]
    return [Instance("loglikelihood", {}, request, 0) for request in requests]


def test_log_likelihoods(overflowing, tokenizer, asked):
    with pytest.raises(ValueError, match=f"log-likelihoods are {REFUSED}"):
        InMemoryLM(overflowing(), tokenizer, 2).loglikelihood(asked)
    assert all(value < 0 for value, _ in InMemoryLM(overflowing(torch.float32), tokenizer, 2).loglikelihood(asked))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_log_likelihoods_of_one_logit_that_is_not_finite(make_model, tokenizer, asked, value):
    """Of a token that no option has, so that the options' own numbers may look right."""
    model = make_model("phi")
    model.lm_head.bias.data[17] = value
    with pytest.raises(ValueError, match=REFUSED):
        InMemoryLM(model, tokenizer, 2).loglikelihood(asked)


@pytest.mark.parametrize("step", [0, 3])
def test_generated_text(make_model, tokenizer, step):
    """Also where only a later step overflows."""
    model, passes = make_model(), []
    prove(model)
    span(model)

    def spoilt(module, args, output):
        passes.append(output)
        return output if len(passes) <= step else output * float("inf")

    model.lm_head.register_forward_hook(spoilt)
    written = [Instance("generate_until", {}, ("The sky is", {"until": ["\n\n"], "max_gen_toks": 8}), 0)]
    with pytest.raises(ValueError, match=f"logits of generated tokens are {REFUSED}"):
        InMemoryLM(model, tokenizer, 2).generate_until(written, disable_tqdm=True)
    assert len(passes) == step + 1
    passes.clear()
    with pytest.raises(ValueError, match=REFUSED):
        generate(model, tokenizer, [[5, 6, 7], [8]], [8, 8], Decoding())
    assert not model._forward_hooks


def test_perplexity(overflowing):
    ids = torch.randint(0, 250, (100,), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=REFUSED):
        window_losses(overflowing(), ids, 64, 32)


def test_captured_states(overflowing, make_model, tokenizer):
    with pytest.raises(ValueError, match=CAPTURED):
        capture_trajectory(overflowing(), tokenizer, PROBES[:2], 3, residual=False)
    dense = capture_trajectory(make_model(), tokenizer, PROBES[:2], 3, residual=True)
    with pytest.raises(ValueError, match=CAPTURED):
        capture_forced(overflowing(), dense)
    with pytest.raises(ValueError, match=CAPTURED):
        capture_counterparts(overflowing(), Decision(), dense, progress)
    with pytest.raises(ValueError, match=CAPTURED):
        decision_states(overflowing(), probe_questions(PROBES, tokenizer))


def test_residual_states_that_the_final_norm_hides(make_model, tokenizer, monkeypatch):
    """A final norm may make finite numbers of infinite states."""
    model = make_model()
    norm = Decoder(model).final_norm
    monkeypatch.setattr(norm, "forward", lambda x: torch.nan_to_num(x, 0, 1, -1))
    Decoder(model).blocks[3].mlp.down_proj.weight.data.fill_(3e38)
    with pytest.raises(ValueError, match=CAPTURED):
        capture_trajectory(model, tokenizer, PROBES[:2], 3, residual=True)


def test_measures(make_model, tokenizer):
    dense = capture_trajectory(make_model(), tokenizer, PROBES[:2], 3, residual=True)
    head, bad = Head(make_model().lm_head.weight.detach()), dense.final * float("nan")
    with pytest.raises(ValueError, match=CAPTURED):
        measure_teacher_forced(dense, bad, head, [1.0])
    counterparts = dense.residual[1:] * float("inf")
    with pytest.raises(ValueError, match=CAPTURED):
        measure_layers(dense, counterparts, head, [1.0], progress)
    questions = probe_questions(PROBES, tokenizer)
    states = decision_states(make_model(), questions)
    with pytest.raises(ValueError, match=CAPTURED):
        measure_options(questions, states, states * float("nan"), head, [1.0], tokenizer, 0)


def test_calibration_text(overflowing, tokenizer):
    with pytest.raises(ValueError, match=REFUSED):
        continued(overflowing(), tokenizer, ["One", "Two and"], 4)
    with pytest.raises(ValueError, match=REFUSED):
        read(overflowing(), [[5, 6, 7, 8], [9, 10]])


@pytest.mark.parametrize("name", ["wanda", "sparsegpt", "awq"])
def test_statistics_of_weight_pruners(overflowing, name):
    model, pruner = overflowing(), pruner_of(name)
    with pytest.raises(ValueError, match=f"(metrics|moments).*{REFUSED}") as caught:
        pruner.decide(Decoder(model), parse(0.5 if pruner.accepts else 0), context_for(pruner, model))
    assert "weights" not in str(caught.value)


@pytest.mark.parametrize("name", ["shortgpt", "attn_drop", "contiguous"])
def test_calibration_scores(overflowing, name):
    model, pruner = overflowing(), pruner_of(name)
    rows = pruner.importance(Decoder(model), context_for(pruner, model, calibration_batches()))
    with pytest.raises(ValueError, match="cannot be ranked"):
        check_scores(rows, "the model")


def test_a_job_in_float16_fails_before_it_asks_anything(make_settings, tmp_path, monkeypatch):
    load = RandomModel.load
    monkeypatch.setattr(RandomModel, "load", lambda self, dtype, store: spoil(load(self, dtype, store)))
    settings = make_settings("pruner=dense", "dtype=float16", "stages=[evaluate]", "task.kinds=[generative]")
    record = run_job(settings, "test", tmp_path)
    assert record.status == FAILED
    assert "outputs in float16 are not finite" in record.error and "(dtype=float32)" in record.error
    assert not list((tmp_path / "outputs" / "store").glob("evaluation/*"))


def test_float16_that_fits_is_loaded(make_settings, tmp_path):
    work = Workbench(make_settings("pruner=dense", "dtype=float16"), Store(tmp_path / "store"))
    assert work.model("float16").dtype == torch.float16


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_only_where_a_gpu_has_it(monkeypatch, native, dtype):
    """A T4 says that it supports bfloat16, which it emulates."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert resolve_dtype("auto") == dtype
    assert resolve_dtype("float16") == torch.float16


@pytest.mark.parametrize(
    ("processor", "dtype"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, torch.float32),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, torch.bfloat16),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, torch.float32),
        ({"bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_auto_is_bfloat16_only_where_a_processor_multiplies_more_of_it(monkeypatch, processor, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert resolve_dtype("auto") == dtype


def test_finite_numbers_are_told_from_their_sums():
    large = torch.full((4,), 3e38)
    assert is_finite(large) and not torch.isfinite(large.sum())
    assert is_finite(torch.full((1000,), 65504.0, dtype=torch.float16))
    assert is_finite(torch.full((4,), 1e300, dtype=torch.float64))
    for value in (float("nan"), float("inf"), float("-inf")):
        x = torch.zeros(3, 5)
        x[2, 1] = value
        assert not is_finite(x)
        with pytest.raises(ValueError, match=f"scores are {REFUSED}"):
            check_values(x, "scores")
    assert is_finite(torch.tensor([1, 2])) and is_finite(torch.empty(0))
    assert not is_finite(torch.tensor([float("inf"), float("-inf")]))


def test_weights_that_are_not_finite_are_counted(make_model):
    model = make_model()
    model.lm_head.weight.data[3, :2] = float("inf")
    with pytest.raises(ValueError, match=r"the model has 2 NaN or infinite values in lm_head\.weight"):
        check_finite(model, "the model")
