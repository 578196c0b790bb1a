"""Relative importance and activations: the formula written out in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import calibration_batches, context_for, pruner_of

from pipeline.config.sparsity import parse
from pipeline.model.decoder import Decoder
from pipeline.prune.methods.ria import relative_importance


def test_parts_of_rows_and_columns_by_hand():
    weight = torch.tensor([[1.0, -3.0], [2.0, 0.0]])
    expected = [[1 / 3 + 1 / 4, 3 / 3 + 3 / 4], [2 / 3 + 2 / 2, 0]]
    torch.testing.assert_close(relative_importance(weight), torch.tensor(expected))
    assert relative_importance(torch.zeros(2, 2)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("power", [0.5, 0.0, 2.0])
def test_the_lowest_of_the_formula_go(make_model, power):
    """Of the first block, which sees what the dense model sees."""
    model, pruner = make_model(), replace(pruner_of("ria"), power=power)
    linears, inputs = Decoder(model).linears(0), {}
    hooks = [
        linear.module.register_forward_pre_hook(
            lambda module, args, name=linear.name: inputs.setdefault(name, []).append(args[0].flatten(0, 1).numpy())
        )
        for linear in linears
    ]
    with torch.inference_mode():
        for batch in calibration_batches():
            model(batch)
    for hook in hooks:
        hook.remove()
    weights = {linear.name: abs(linear.weight.double().numpy()) for linear in linears}
    masks = pruner.decide(Decoder(model), parse(0.4), context_for(pruner, model)).changes[0].masks
    for linear in linears:
        size, norm = weights[linear.name], np.linalg.norm(np.concatenate(inputs[linear.name]), axis=0)
        found = np.zeros_like(size)
        for i in range(size.shape[0]):
            for j in range(size.shape[1]):
                part = size[i, j] / size[:, j].sum() + size[i, j] / size[i].sum()
                found[i, j] = part * norm[j] ** power
        gone = masks[linear.parameter].numpy()
        assert gone.sum() == int(0.4 * size.size)
        assert found[gone].max() <= found[~gone].min() * (1 + 1e-4)
