"""The layer protocol against bare projections, and against a plain loop."""

from __future__ import annotations

from dataclasses import replace

import torch

from pipeline.bench.ratios import GIB, peak_memory, ratio, report, seconds
from pipeline.config.probes import PROBES
from pipeline.measure.layerwise import Stream, measure_stream
from pipeline.measure.measures import block_rows
from pipeline.model.decoder import Decoder
from pipeline.model.head import Head
from pipeline.model.trajectory import capture_trajectory
from pipeline.prune.settings import Settings
from pipeline.store.artifacts import Store

# Number of positions of the layer protocol, and the stride at which the plain loop samples them.
POSITIONS, SAMPLED = 200, 20


def measuring(settings: Settings, store: Store, repeats: int) -> None:
    """Time all measures of the layer protocol at 200 positions against the bare projections of its distinct states.

    The baseline projects blocks as large as those of the measures, into memory allocated before. The plain loop takes
    every twentieth position, and its time is scaled to all of them.
    """
    model = settings.model.load(torch.float32, store)
    tokenizer = settings.model.tokenizer(store)
    captured = capture_trajectory(model, tokenizer, PROBES, settings.capture.steps, residual=True)
    assert captured.residual is not None
    weight, states = Decoder(model).head.weight.detach(), captured.residual[:, :POSITIONS].contiguous()
    dropped = Stream(states, captured.before, captured.after)
    # Changed weights give every sublayer a counterpart of its own; here it is a copy of the state before it.
    others = states[list(captured.before)]
    changed = replace(dropped, counterparts=others)
    head, positions = Head(weight), states.shape[1]

    def measure(stream: Stream) -> None:
        measure_stream(stream, head, [1.0], lambda items, what, total: items)

    @torch.inference_mode()
    def projections(several: torch.Tensor) -> None:
        out = weight.new_empty(min(positions, block_rows(head)), len(weight))
        for state in several:
            for block in state.split(len(out)):
                torch.mm(block, weight.T, out=out[: len(block)])

    both = torch.cat([states[list(captured.after)], others])
    report("positions", positions)
    report("measure_vs_gemm", ratio(lambda: measure(dropped), lambda: projections(states), repeats))
    report("measure_changed_vs_gemm", ratio(lambda: measure(changed), lambda: projections(both), repeats))
    report("measure_peak_gib", peak_memory(lambda: measure(dropped)) / GIB)
    some = replace(dropped, residual=states[:, ::SAMPLED].contiguous())
    share = some.residual.shape[1] / positions
    report("measure_vs_loop", seconds(lambda: plain_loop(some, weight)) / share / seconds(lambda: measure(dropped)))


@torch.inference_mode()
def plain_loop(stream: Stream, weight: torch.Tensor) -> list[list[float]]:
    """Compute the same measures step by step and layer by layer, with both models' logits and probabilities anew."""
    rows = []
    for position in range(stream.residual.shape[1]):
        for before, after in zip(stream.before, stream.after, strict=True):
            h, h2 = stream.residual[after, position], stream.residual[before, position]
            z, z2 = weight @ h, weight @ h2
            p, q = z.softmax(-1), z2.softmax(-1)
            dz = z2 - z
            r = p.square() / p.square().sum()
            row = [float(torch.cosine_similarity(x, y, dim=-1)) for x, y in ((h, h2), (z, z2), (p, q))]
            row.append(float((p * (z.log_softmax(-1) - z2.log_softmax(-1))).sum()))
            for x, dx in ((h, h2 - h), (z, dz)):
                along = (x @ dx) / (x @ x) * x
                row += [float(along.square().sum() / (x @ x)), float((dx - along).square().sum() / (x @ x))]
            for w in (p, r):
                mean = (w * dz).sum()
                row.append(float((w * (dz - mean).square()).sum()))
            row += [float(dz.var(correction=0)), float(dz.square().mean().sqrt())]
            first, second = p.topk(2).values
            entropy = -(p * z.log_softmax(-1)).sum()
            row += [float(first), float(entropy), float(first.log() - second.log()), float(z.argmax() != z2.argmax())]
            rows.append(row)
    return rows
