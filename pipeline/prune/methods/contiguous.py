"""Contiguous blocks: remove those that turn the residual stream least together (Gromov et al., arXiv 2403.17887)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from pipeline.config.sparsity import Sparsity
from pipeline.model.decoder import Decoder
from pipeline.model.residual import tap_blocks
from pipeline.prune.base import Context, Pruner, Score
from pipeline.prune.decision import Decision
from pipeline.prune.methods.shortgpt import blocks_to_remove


@dataclass(frozen=True)
class ContiguousBlocks(Pruner):
    """Removes the n consecutive blocks across which the mean angular distance ``arccos(cos)/π`` is smallest.

    The distance is that between the inputs of blocks i and i + n at the last token of each sequence. One pass scores
    every n.
    """

    accepts: ClassVar[tuple[str, ...]] = ("fraction", "units")
    unit: ClassVar[str] = "block"

    @torch.inference_mode()
    def importance(self, decoder: Decoder, context: Context) -> list[Score]:
        blocks = len(decoder.blocks)
        last: list[list[torch.Tensor]] = [[] for _ in range(blocks + 1)]
        with tap_blocks(decoder, lambda index, state: last[index].append(state[:, -1].float().cpu())):
            for batch in context.each("angular distance"):
                decoder.base(batch.to(decoder.device), use_cache=False)
        states = torch.nn.functional.normalize(torch.stack([torch.cat(rows) for rows in last]).double(), dim=-1)
        distance = torch.einsum("isd,jsd->ijs", states, states).clamp_(-1, 1).arccos_().mean(-1) / math.pi
        return [
            {"layer": start, "sublayer": "block", "blocks": count, "score": float(distance[start, start + count])}
            for count in range(1, blocks)
            for start in range(blocks + 1 - count)
        ]

    def decide(self, decoder: Decoder, sparsity: Sparsity, context: Context) -> Decision:
        scores, count = context.scores({}), blocks_to_remove(decoder, sparsity)
        if not count:
            return Decision(scores=scores)
        best = min((row for row in scores if row["blocks"] == count), key=lambda row: row["score"])
        return Decision(blocks=tuple(range(best["layer"], best["layer"] + count)), scores=scores)
