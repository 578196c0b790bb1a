"""Finds the structure of a model by watching one forward pass: blocks, sublayers, norms, factors, matrices, head.

Nothing here knows a model family. What was found is proven by ``pipeline.model.proof`` before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.model.block_form import Group, Unfit, block_of, chain_of, check_carried, is_norm, readers_of
from pipeline.model.block_list import block_list
from pipeline.model.chunks import InChunksError, read_whole
from pipeline.model.experts import one_expert_at_a_time
from pipeline.model.handed_on import with_handed_on
from pipeline.model.head_form import tail_of
from pipeline.model.nested import tensors_of
from pipeline.model.rescaled import factors_since, rescaled, samples
from pipeline.model.short_pass import TOKENS, evaluating, tokens
from pipeline.model.structure import ATTENTION, Structure
from pipeline.model.watched_pass import Seen, watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Relative difference of a row to an equal one in a batch that rounding explains, in any dtype.
_ROUNDING = 0.02


def structure_of(model: PreTrainedModel) -> Structure:
    """Return the structure of a model, found at the first call and kept with the model. Raises Unfit as `discover`."""
    found = getattr(model, "residual_structure", None)
    if found is None:
        found = model.residual_structure = discover(model)
    return found


def discover(model: PreTrainedModel) -> Structure:
    """Return the structure of a dense model. Raises Unfit, which names the model, for a form that is not known."""
    try:
        # In inference mode, operators are not taken apart.
        with torch.inference_mode(False), torch.no_grad(), one_expert_at_a_time(model), evaluating(model):
            before = samples(model)
            found = _discover(model)
            return rescaled(found, factors_since(model, before))
    except Unfit as error:
        raise Unfit(f"a {model.config.model_type} model cannot be pruned here: {error}") from None


def _discover(model: PreTrainedModel) -> Structure:
    listed = block_list(model)
    name, blocks = listed.name, [block for place, block in enumerate(listed.blocks) if place not in listed.idle]
    lists = Structure(name, (), steps=listed.steps).lists
    try:
        seen = watch(model, blocks, lists)
    except InChunksError as chunks:
        read_whole(model, blocks, chunks.length, tokens(model))
        seen = watch(model, blocks, lists)
    chains = [chain_of(at, flow, block) for at, (flow, block) in enumerate(zip(seen.blocks, blocks, strict=True))]
    renewing = [frozenset(group.norm for group in chain if group.norm) for chain in chains]
    if any(renewing):
        seen = watch(model, blocks, lists, renewing)
        chains = [chain_of(at, flow, block) for at, (flow, block) in enumerate(zip(seen.blocks, blocks, strict=True))]
    behind, last = tail_of(model, name, seen.tail)
    tail = _layout(model, behind, seen)
    check_carried(chains, bool(tail.tail) and is_norm(model.get_submodule(tail.tail[0])))
    mixers = mixing(model, blocks, seen, chains)
    found = tuple(
        replace(block_of(at, flow, chain, block, mixers[at]), passed=passed)
        for at, (flow, chain, block, passed) in enumerate(
            zip(seen.blocks, chains, blocks, (*seen.passed, last), strict=True)
        )
    )
    attends = any(not part.mixer for block in found if (part := block.part(ATTENTION)))
    found = with_handed_on(model, tokens(model), blocks, found)
    return replace(tail, blocks=found, mixers_only=not attends, idle=listed.idle, steps=listed.steps)


def _layout(model: PreTrainedModel, structure: Structure, seen: Seen) -> Structure:
    """Add to a structure which of the states between its blocks give the logits. Raises Unfit if that is not known."""
    rows = seen.last.shape[1]
    if rows == TOKENS:
        return structure
    if rows % TOKENS or structure.encoder or structure.head_wrapper:
        raise Unfit(f"its last block returns {rows} states for {TOKENS} tokens")
    head = nn.Sequential(*(model.get_submodule(path) for path in structure.tail), model.get_output_embeddings())
    streams = [head(part).flatten().float() for part in seen.last.split(TOKENS, 1)]
    likeness = [torch.cosine_similarity(part, seen.out.flatten().float(), 0) for part in streams]
    return replace(structure, stream=int(torch.stack(likeness).argmax()), streams=len(streams))


def mixing(
    model: PreTrainedModel, blocks: Sequence[nn.Module], seen: Seen, chains: Sequence[Sequence[Group]]
) -> list[frozenset[str]]:
    """Return, by block, the writing modules whose update depends on earlier tokens without attention.

    Two rows that differ in their first token alone are compared at the last one, each sublayer given a stream that
    differs in its first token alone.
    """
    found: list[set[str]] = [set() for _ in blocks]

    def alike(module: nn.Module, args: Any, kwargs: Any) -> Any:
        def rows(x: torch.Tensor) -> torch.Tensor:
            # Some blocks (OPT) flatten batch and tokens for their MLP.
            y = x.reshape(2, -1, x.shape[-1]).clone()
            y[1, 1:] = y[0, 1:]
            return y.view(x.shape)

        if args and isinstance(args[0], torch.Tensor):
            return (rows(args[0]), *args[1:]), kwargs
        return args, kwargs | {name: rows(x) for name, x in kwargs.items() if name == "hidden_states"}

    def compare(at: int, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            x = next(tensors_of(output)).float()
            x = x.reshape(2, -1, x.shape[-1])[:, 1:]
            if (x[0] - x[1]).abs().max() > _ROUNDING * x.abs().max():
                found[at].add(path)

        return hook

    with ExitStack() as stack:
        for at, (flow, chain, block) in enumerate(zip(seen.blocks, chains, blocks, strict=True)):
            calls = {call.path: call for call in flow.calls}
            for call in (calls[write.module] for group in chain for write in group.writes):
                entry = next(iter(readers_of(flow, call.result)), None)
                if call.result.attends or entry is None:
                    continue
                stack.callback(block.get_submodule(entry).register_forward_pre_hook(alike, with_kwargs=True).remove)
                stack.callback(block.get_submodule(call.path).register_forward_hook(compare(at, call.path)).remove)
        model(tokens(model, others=1), use_cache=False)
    return [frozenset(paths) for paths in found]
