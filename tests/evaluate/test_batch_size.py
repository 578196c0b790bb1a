"""The batch size that is found: by speed and by memory, once for all variants of a model."""

from __future__ import annotations

import pytest
import torch

from pipeline.check.command_line import problems
from pipeline.evaluate import batch_size
from pipeline.evaluate.batch_size import found_size
from pipeline.prune.workbench import Workbench
from pipeline.store.artifacts import Store

FREE = 2**40


@pytest.fixture
def search(monkeypatch, make_model):
    """Search with made-up seconds of a pass, by its number of rows; the sizes that were tried."""
    model, tried = make_model(), []

    def run(seconds, free=FREE):
        def pass_of(model, ids):
            tried.append(len(ids))
            return seconds(len(ids))

        monkeypatch.setattr(batch_size, "_seconds", pass_of)
        monkeypatch.setattr(batch_size, "memory_budget", lambda device: free)
        return found_size(model, 10), sorted(set(tried))

    return run


def test_it_is_doubled_while_tokens_pass_faster(search):
    # Up to 16 rows take as long as one, then each takes as long as the others.
    assert search(lambda rows: max(rows, 16) / 16) == (16, [1, 2, 4, 8, 16, 32, 64])


def test_a_gain_that_is_none_ends_the_search(search):
    assert search(lambda rows: rows) == (1, [1, 2, 4])
    assert search(lambda rows: 1.0)[0] == 256


def test_what_memory_does_not_hold_is_not_tried(search, make_model):
    room = 10 * batch_size.bytes_per_token(make_model()) * 5
    assert search(lambda rows: 1.0, room) == (4, [1, 2, 4])
    assert search(lambda rows: 1.0, 0)[0] == 1


def test_a_gpu_runs_out_of_memory_once(search):
    def seconds(rows):
        if rows >= 8:
            raise torch.OutOfMemoryError
        return 1.0

    assert search(seconds) == (4, [1, 2, 4, 8])


def test_variants_share_what_was_found_on_the_dense_model(make_settings, tmp_path):
    from pipeline.evaluate.stage import BatchSize, Evaluation

    words = ("task.batch_size=auto", "stages=[prune,evaluate]", "sparsity=0.5", "dtype=bfloat16")
    benches = [
        Workbench(make_settings(*words, f"pruner={name}"), Store(tmp_path)) for name in ("wanda", "magnitude", "dense")
    ]
    found = [(bench.make(Evaluation).key, bench.make(BatchSize).path) for bench in benches]
    assert len({key for key, _ in found}) == 3
    ((size,),) = {tuple(path.glob("batch_size.txt")) for _, path in found}
    number = int(size.read_text())
    assert number in {2**power for power in range(9)}
    # The same as that number given, but for the rounding of other batches.
    full = (make_settings(*words, f"task.batch_size={given}", "dtype=float32") for given in ("auto", number))
    assert len({Workbench(settings, Store(tmp_path)).make(Evaluation).key for settings in full}) == 1


def test_drawn_tokens_need_a_number():
    drawn = ["task=lm_eval", "task.names=[gsm8k]", "task.gen_kwargs={do_sample: true}", "task.batch_size=auto"]
    assert any("task.batch_size=auto: tokens that are drawn" in found for found in problems(drawn, multirun=False))
    assert any("should be" in found for found in problems(["task.batch_size=many"], multirun=False))
