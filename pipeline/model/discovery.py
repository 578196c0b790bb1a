"""Finds the structure of a model by watching one forward pass: blocks, sublayers, norms, factors, matrices, head.

Nothing here knows a model family. What was found is proven by ``pipeline.model.proof`` before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel

from pipeline.model.block_form import Group, Unfit, block_of, chain_of, check_carried, is_norm, readers_of
from pipeline.model.chunks import InChunksError, check_order, read_whole
from pipeline.model.dataflow import STREAM, Fact, Flow, Follower
from pipeline.model.experts import one_expert_at_a_time
from pipeline.model.handed_on import with_handed_on
from pipeline.model.head_form import tail_of
from pipeline.model.nested import tensors_of
from pipeline.model.rescaled import factors_since, rescaled, samples
from pipeline.model.side_by_side import runner_of, steps_of
from pipeline.model.structure import ATTENTION, Step, Structure

# Number of tokens of the pass: few, and unlike the size of anything else, so that attention shows by its shape.
TOKENS = 13
# Relative difference of a row to an equal one in a batch that rounding explains, in any dtype.
_ROUNDING = 0.02
# Relative difference of two passes that do the same in the same order.
_EQUAL = 1e-4


@dataclass(frozen=True)
class Seen:
    """What one pass showed: the flow in every block, what its output was multiplied by on the way to the next one, and
    the flow behind the last one; the last state, and what came out.
    """

    blocks: tuple[Flow, ...]
    passed: tuple[float, ...]
    tail: Flow
    last: torch.Tensor
    out: torch.Tensor


@dataclass(frozen=True)
class BlockList:
    """The blocks of a model: the path of the list, and the blocks in it, of which text does not pass the ``idle`` ones.

    ``steps`` are the modules of each block where these lie in several lists; the path is then that of the largest.
    """

    name: str
    blocks: tuple[nn.Module, ...]
    idle: tuple[int, ...]
    steps: tuple[Step, ...] = ()


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


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Let a model compute without dropout within the block; each of its modules is then in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


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


def block_list(model: PreTrainedModel) -> BlockList:
    """Return the block list: the outermost list with the most parameters of those that run.

    A model that also sees or hears has others, and blocks within this one, which text does not pass. Lists of one
    length in one module, which run by turns, hold the modules of each block together.
    """
    lists = [(name, each) for name, each in model.named_modules() if isinstance(each, nn.ModuleList) and len(each)]
    outermost = [(name, each) for name, each in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    ran: set[tuple[str, int]] = set()
    with ExitStack() as stack:
        for name, each in outermost:
            for place, block in enumerate(each):
                hook = block.register_forward_pre_hook(lambda *_, at=(name, place): ran.add(at))
                stack.callback(hook.remove)
        out = model(tokens(model), use_cache=False)[0]
    outermost = [(name, each) for name, each in outermost if any(name == other for other, _ in ran)]
    if not outermost:
        raise Unfit("it has no list of blocks")
    name, found = max(outermost, key=lambda found: sum(p.numel() for p in found[1].parameters()))
    idle = tuple(place for place in range(len(found)) if (name, place) not in ran)
    holder = name.rpartition(".")[0]
    beside = [
        other.removeprefix(f"{holder}.")
        for other, each in outermost
        if other.rpartition(".")[0] == holder and len(each) == len(found)
    ]
    steps = steps_of(model, tokens(model), holder, beside) if len(beside) > 1 and not idle else ()
    if not steps:
        return BlockList(name, tuple(found), idle)
    runner = runner_of(model, Structure(name, (), steps=steps))
    again = model(tokens(model), use_cache=False)[0]
    if (again - out).abs().max() > _EQUAL * out.abs().max():
        raise Unfit(f"its blocks, of {', '.join(beside)}, compute something else together than one by one")
    return BlockList(name, tuple(runner.blocks), (), steps)


class _Sections:
    """Follows one section of a pass at a time: a block, the way to the next one, or what is behind the last."""

    def __enter__(self) -> Self:
        self._running = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        # Also where the pass broke off within a section.
        self._running.close()

    def begin(self, follower: Follower, stream: torch.Tensor) -> None:
        """End the section before, and begin one with its stream (B, T, D)."""
        self._running.close()
        self._running.enter_context(follower)
        self.current = follower
        follower.begin(stream, TOKENS)


def watch(
    model: PreTrainedModel, blocks: Sequence[nn.Module], lists: Sequence[str], renewing: Sequence[frozenset[str]] = ()
) -> Seen:
    """Run the model on a few tokens, and follow the stream through each block of ``lists``, between and behind them."""
    order: list[int] = []
    lengths: list[int] = []
    passed: list[Fact] = []
    followers = [
        Follower(
            {module: path for path, module in block.named_modules() if path},
            dict(block.named_parameters()),
            renewing[at] if renewing else (),
        )
        for at, block in enumerate(blocks)
    ]
    inner = tuple(f"{name}." for name in lists)
    outside = {m: path for path, m in model.named_modules() if path and not inner[0].startswith(f"{path}.")}
    outside = {m: path for m, path in outside.items() if not f"{path}.".startswith(inner)}
    outer = {path: value for path, value in model.named_parameters() if not path.startswith(inner)}
    tail = Follower(outside, outer, rows=True)
    last: list[torch.Tensor] = []

    with ExitStack() as stack, _Sections() as sections:

        def enter(at: int, block: nn.Module, args: Any, kwargs: Any) -> None:
            order.append(at)
            stream = stream_of(args, kwargs)
            lengths.append(stream.shape[1])
            if order[1:]:
                # Some models multiply by a mask in between, which is one here.
                same = last[0].shape == stream.shape and torch.equal(last[0], stream)
                passed.append(Fact({STREAM: 1.0}) if same else sections.current.fact(stream))
            sections.begin(followers[at], stream)

        def leave(at: int, block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            result = next(iter(tensors_of(output)))
            followers[at].flow.result = followers[at].fact(result)
            followers[at].flow.several = len(output) if isinstance(output, tuple | list) else 0
            sections.begin(tail if at == len(blocks) - 1 else Follower({}, {}), result)
            last[:] = [result.clone()]

        for at, block in enumerate(blocks):
            hook = followers[at]
            for module in block.modules():
                if module is not block:
                    stack.callback(module.register_forward_pre_hook(hook.entered, with_kwargs=True).remove)
                    stack.callback(module.register_forward_hook(hook.left, with_kwargs=True).remove)
            stack.callback(block.register_forward_pre_hook(_bound(enter, at), with_kwargs=True, prepend=True).remove)
            stack.callback(block.register_forward_hook(_bound(leave, at), with_kwargs=True).remove)
        for module in outside:
            stack.callback(module.register_forward_pre_hook(tail.entered, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(tail.left, with_kwargs=True).remove)
        out = model(tokens(model), use_cache=False)
        tail.flow.result = tail.fact(out[0])
    check_order(order, lengths, len(blocks), TOKENS)
    return Seen(tuple(follower.flow for follower in followers), _factors(passed), tail.flow, last[0], out[0])


def _factors(passed: Sequence[Fact]) -> tuple[float, ...]:
    """Return what each block's output is multiplied by before the next block. Raises Unfit if more is done to it."""
    found = []
    for at, fact in enumerate(passed):
        if fact.sum is None or set(fact.sum) != {STREAM}:
            raise Unfit(f"block {at + 1} is not given what block {at} returns")
        found.append(fact.sum[STREAM])
    return tuple(found)


def tokens(model: PreTrainedModel, others: int = 0) -> torch.Tensor:
    """Return the token ids (1 + others, TOKENS) of a pass; the other rows begin with another token."""
    size = model.get_input_embeddings().weight.shape[0]
    rows = torch.arange(3, 3 + TOKENS).remainder(size).repeat(1 + others, 1)
    rows[1:, 0] += 1
    return rows


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


def stream_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the residual stream among the arguments of a block: the first that is a floating-point tensor."""
    named = kwargs.get("hidden_states")
    if isinstance(named, torch.Tensor):
        return named
    return next(x for x in tensors_of((args, dict(kwargs))) if x.is_floating_point())


def _bound(call: Callable[..., None], at: int) -> Callable[..., None]:
    return lambda *given: call(at, *given)
