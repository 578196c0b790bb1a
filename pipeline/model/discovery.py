"""Finds the structure of a model by watching one forward pass: blocks, sublayers, norms, factors, matrices, head.

Nothing here knows a model family. What was found is proven by ``pipeline.model.proof`` before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pipeline.model.dataflow import STREAM, Call, Fact, Flow, Follower, Key, Sum, tensors_of
from pipeline.model.experts import one_expert_at_a_time
from pipeline.model.structure import ATTENTION, MLP, BlockStructure, Part, Structure, Stub, Write

# Number of tokens of the pass: few, and unlike the size of anything else, so that attention shows by its shape.
TOKENS = 13
# Relative difference of a row to an equal one in a batch that rounding explains, in any dtype.
_ROUNDING = 0.02


# Attribute in which modules keep the number of their slot in the cache.
CACHE_SLOT = "layer_idx"


class Unfit(ValueError):
    """A model does not have the form that the pipeline knows; the message says where and why."""


@dataclass(frozen=True)
class Seen:
    """What one pass showed: the flow in every block, the flow behind the last one, kinds of mixing."""

    blocks: tuple[Flow, ...]
    tail: Flow


def structure_of(model: PreTrainedModel) -> Structure:
    """Return the structure of a model, found at the first call and kept with the model. Raises Unfit as `discover`."""
    found = getattr(model, "residual_structure", None)
    if found is None:
        found = model.residual_structure = discover(model)
    return found


def discover(model: PreTrainedModel) -> Structure:
    """Return the structure of a dense model. Raises Unfit, which names the model, for a form that is not known."""
    training = model.training
    try:
        # In inference mode, operators are not taken apart.
        with torch.inference_mode(False), torch.no_grad(), one_expert_at_a_time(model):
            return _discover(model.eval())
    except Unfit as error:
        raise Unfit(f"a {model.config.model_type} model cannot be pruned here: {error}") from None
    finally:
        model.train(training)


def _discover(model: PreTrainedModel) -> Structure:
    name, listed = block_list(model)
    blocks = list(listed)
    seen = watch(model, blocks, name)
    chains = [_chain(at, flow, block) for at, (flow, block) in enumerate(zip(seen.blocks, blocks, strict=True))]
    renewing = [frozenset(group.norm for group in chain if group.norm) for chain in chains]
    if any(renewing):
        seen = watch(model, blocks, name, renewing)
        chains = [_chain(at, flow, block) for at, (flow, block) in enumerate(zip(seen.blocks, blocks, strict=True))]
    mixers = mixing(model, blocks, seen, chains)
    found = tuple(
        _block(at, flow, chain, block, mixers[at])
        for at, (flow, chain, block) in enumerate(zip(seen.blocks, chains, blocks, strict=True))
    )
    attends = any(not part.mixer for block in found if (part := block.part(ATTENTION)))
    return replace(head(model, name, seen.tail), blocks=found, mixers_only=not attends)


def block_list(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return name and modules of the block list: the outermost list with the most parameters."""
    lists = [(name, each) for name, each in model.named_modules() if isinstance(each, nn.ModuleList) and len(each)]
    outermost = [(name, each) for name, each in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    if not outermost:
        raise Unfit("it has no list of blocks")
    return max(outermost, key=lambda found: sum(p.numel() for p in found[1].parameters()))


def watch(
    model: PreTrainedModel, blocks: Sequence[nn.Module], name: str, renewing: Sequence[frozenset[str]] = ()
) -> Seen:
    """Run the model on a few tokens, and follow the stream through each block and behind the last one."""
    order: list[int] = []
    followers = [
        Follower(
            {module: path for path, module in block.named_modules() if path},
            dict(block.named_parameters()),
            renewing[at] if renewing else (),
        )
        for at, block in enumerate(blocks)
    ]
    outside = {m: path for path, m in model.named_modules() if path and not f"{name}.".startswith(f"{path}.")}
    outside = {m: path for m, path in outside.items() if not path.startswith(f"{name}.")}
    tail = Follower(outside, {p: v for p, v in model.named_parameters() if not p.startswith(f"{name}.")})

    with ExitStack() as stack, ExitStack() as behind:

        def enter(at: int, block: nn.Module, args: Any, kwargs: Any) -> None:
            order.append(at)
            stream = stream_of(args, kwargs)
            followers[at].__enter__()
            followers[at].begin(stream)

        def leave(at: int, block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            result = next(iter(tensors_of(output)))
            followers[at].flow.result = followers[at].fact(result)
            followers[at].flow.several = len(output) if isinstance(output, tuple) else 0
            followers[at].__exit__(None, None, None)
            if at == len(blocks) - 1:
                behind.enter_context(tail)
                tail.begin(result)

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
    if order != list(range(len(blocks))):
        raise Unfit(f"its blocks run in the order {order}, not once each from first to last")
    return Seen(tuple(follower.flow for follower in followers), tail.flow)


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
                entry = next(iter(_readers(flow, call.result)), None)
                if call.result.attends or entry is None:
                    continue
                stack.callback(block.get_submodule(entry).register_forward_pre_hook(alike, with_kwargs=True).remove)
                stack.callback(block.get_submodule(call.path).register_forward_hook(compare(at, call.path)).remove)
        model(tokens(model, others=1), use_cache=False)
    return [frozenset(paths) for paths in found]


def _readers(flow: Flow, fact: Fact) -> list[str]:
    """Return the modules behind a tensor that read the stream, the last form of it that was read, in order."""
    read = max(fact.reads, key=len, default=frozenset())
    return [path for path in flow.readers.get(read, ()) if path in fact.modules]


def stream_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the residual stream among the arguments of a block: the first that is a floating-point tensor."""
    named = kwargs.get("hidden_states")
    if isinstance(named, torch.Tensor):
        return named
    return next(x for x in tensors_of((args, dict(kwargs))) if x.is_floating_point())


def _bound(call: Callable[..., None], at: int) -> Callable[..., None]:
    return lambda *given: call(at, *given)


@dataclass(frozen=True)
class Group:
    """Updates that are added to one form of the stream: the block's own, or what a norm made of it.

    ``source`` is that form, ``norm`` the norm on the sum, empty if the sum is the block's output, and ``factor`` what
    the whole sum is multiplied by.
    """

    source: str
    writes: tuple[Write, ...]
    norm: str = ""
    factor: float = 1.0


def _chain(at: int, flow: Flow, block: nn.Module) -> tuple[Group, ...]:
    """Return the groups of updates of a block, from its input to its output. Raises Unfit if there is no such form."""
    if flow.result.sum is None:
        raise Unfit(f"block {at} does not return its input with the outputs of modules added")
    calls = {call.path: call for call in flow.calls}
    order = {call.path: place for place, call in enumerate(flow.calls)}
    groups = _groups(flow.result.sum, calls, block, order)
    if groups is None:
        raise Unfit(f"block {at} returns {_shown(flow.result.sum)}, without the stream that it was given")
    for number, (group, total) in enumerate(groups):
        scaled = number < len(groups) - 1 or len(set(total.values())) > 1
        if total[group.source] != 1 and scaled:
            raise Unfit(f"block {at} scales its residual stream by {total[group.source]:g}")
        for write in group.writes:
            if sum(call.path == write.module for call in flow.calls) > 1:
                raise Unfit(f"block {at} runs {write.module} more than once")
    return tuple(group for group, _ in groups)


def _groups(
    total: Sum, calls: Mapping[str, Call], block: nn.Module, order: Mapping[str, int]
) -> list[tuple[Group, Sum]] | None:
    def group(source: str) -> Group:
        factor = total[source] if len(set(total.values())) == 1 else 1.0
        writes = [Write(name, share / factor) for name, share in total.items() if name != source]
        return Group(source, tuple(sorted(writes, key=lambda write: order.get(write.module, -1))), factor=factor)

    if STREAM in total:
        return [(group(STREAM), total)]
    for source in total:
        call = calls.get(source)
        while call is not None and call.inner:
            call = calls[call.inner]
        if call is None or call.given.sum is None or not is_norm(block.get_submodule(call.path)):
            continue
        earlier = _groups(call.given.sum, calls, block, order)
        if earlier is not None:
            last, before = earlier[-1]
            return [*earlier[:-1], (Group(last.source, last.writes, call.path), before), (group(source), total)]
    return None


def is_norm(module: nn.Module) -> bool:
    """Return whether a module can be a norm: it has no matrices."""
    return all(parameter.ndim < 2 for parameter in module.parameters())


def _shown(total: Sum) -> str:
    return " + ".join(f"{factor:g}·{name}" for name, factor in total.items()) or "nothing known"


@dataclass
class _Update:
    write: Write
    call: Call
    group: Group
    read: Key = field(default_factory=frozenset)

    @property
    def modules(self) -> frozenset[str]:
        return self.call.result.modules


def _block(at: int, flow: Flow, chain: Sequence[Group], block: nn.Module, mixers: frozenset[str]) -> BlockStructure:
    calls = {call.path: call for call in flow.calls}
    updates = [_Update(write, calls[write.module], group) for group in chain for write in group.writes]
    kinds = {u.write.module: ATTENTION if u.call.result.attends or u.write.module in mixers else MLP for u in updates}
    parts, reads = [], set()
    for kind in dict.fromkeys(kinds.values()):
        mine = [update for update in updates if kinds[update.write.module] == kind]
        others = frozenset().union(*(update.modules for update in updates if update not in mine))
        parts.append(_part(at, kind, mine, others, flow, block))
        reads |= {sums for update in mine for sums in update.call.result.reads}
    matrices = tuple(sorted(flow.products.items()))
    opening = chain[0].norm if not chain[0].writes else ""
    parallel = len(parts) > 1 and len(reads) == 1
    caches = tuple(path for path in dict.fromkeys(flow.ran) if hasattr(block.get_submodule(path), CACHE_SLOT))
    return BlockStructure(tuple(parts), parallel, matrices, opening, chain[-1].factor, flow.several, caches)


def _part(at: int, kind: str, updates: Sequence[_Update], others: frozenset[str], flow: Flow, block: nn.Module) -> Part:
    involved = frozenset().union(*(update.modules for update in updates))
    order = {call.path: place for place, call in enumerate(flow.calls)}
    readers = _readers(flow, updates[0].call.result)
    if not readers:
        raise Unfit(f"the {kind} sublayer of block {at} does not read the residual stream")
    own = [path for path in involved if path not in others]
    outer = sorted((p for p in own if not any(p.startswith(f"{q}.") for q in own)), key=lambda p: order[p])
    entry = readers[0]
    last = updates[-1].write.module
    calls = {call.path: call for call in flow.calls}
    zero: set[str] = set()
    for update in updates:
        zero |= update.call.result.zero or set()
    return Part(
        kind=kind,
        writes=tuple(update.write for update in updates),
        entry=entry,
        modules=tuple(outer),
        stubs=tuple(_stub(calls[path].returned) for path in outer),
        norm=entry if is_norm(block.get_submodule(entry)) else "",
        post_norm=last if last != entry and is_norm(block.get_submodule(last)) else "",
        closing=updates[-1].group.norm,
        mixer=kind == ATTENTION and not any(update.call.result.attends for update in updates),
        zero=tuple(sorted(zero)),
    )


def head(model: PreTrainedModel, name: str, flow: Flow) -> Structure:
    """Return the structure behind the blocks: modules up to the output projection, and what scales its logits."""
    projection = model.get_output_embeddings()
    calls = {call.path: call for call in flow.calls}
    if projection is None:
        return Structure(name, (), tail=tuple(_way(flow.result, calls)[0]), encoder=True)
    path = next(path for path, module in model.named_modules() if module is projection)
    wrapper = wrapper_of(model, name)
    last = wrapper or path
    if last not in calls or not isinstance(projection, nn.Linear):
        raise Unfit(f"its logits do not come from a linear output projection ({type(projection).__name__} {path})")
    tail, scale = _way(calls[last].given, calls)
    result, cap = flow.result.sum, None
    if result is None:
        # Squashed: the cap is the number of the configuration that gives the model's logits, which is proven later.
        cap = next(iter(caps_of(model.config)), None)
    elif set(result) != {last}:
        raise Unfit(f"its logits are {_shown(result)}, not those of its output projection {path}")
    else:
        scale *= result[last]
    base = f"{model.base_model_prefix}."
    outer = tuple(each for each in tail if not each.startswith(base)) if model.base_model is not model else ()
    return Structure(name, (), tuple(tail), outer, scale, cap, wrapper)


def wrapper_of(model: PreTrainedModel, blocks: str) -> str:
    """Return the outermost module around the output projection, without the blocks; empty if there is none."""
    projection = model.get_output_embeddings()
    path = next(path for path, module in model.named_modules() if module is projection)
    parents = [path[:at] for at, letter in enumerate(path) if letter == "."]
    return next((parent for parent in parents if not f"{blocks}.".startswith(f"{parent}.")), "")


def caps_of(config: Any) -> list[float]:
    """Return the numbers of a configuration that may cap logits."""
    fields = config.get_text_config().to_dict()
    return [
        float(value)
        for field, value in fields.items()
        if "cap" in field and "logit" in field and "att" not in field and isinstance(value, int | float) and value
    ]


def _way(fact: Fact, calls: Mapping[str, Call]) -> tuple[list[str], float]:
    """Return the modules that lead from the last block's output to a tensor, and the tensor's factor."""
    if fact.sum is None or len(fact.sum) != 1:
        raise Unfit("the way from its last block to its output cannot be followed")
    ((source, factor),) = fact.sum.items()
    if source == STREAM:
        return [], factor
    earlier, scale = _way(calls[source].given, calls)
    if scale != 1:
        raise Unfit(f"it scales its last state by {scale:g} before {source}")
    return [*earlier, source], factor


def _stub(returned: Any) -> Stub:
    several = len(returned) if isinstance(returned, tuple | list) else 0
    return Stub(several, next(iter(tensors_of(returned))).shape[-1], isinstance(returned, list))
