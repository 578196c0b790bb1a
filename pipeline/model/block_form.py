"""The form of a block, read from the data flow of one pass: what it adds to the residual stream, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from pipeline.model.dataflow import STREAM, Call, Fact, Flow, Sum, all_of, key
from pipeline.model.nested import tensors_of
from pipeline.model.structure import ATTENTION, CACHE_SLOTS, MLP, BlockStructure, Part, Stub, Write


class Unfit(ValueError):
    """A model does not have the form that the pipeline knows; the message says where and why."""


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


def chain_of(at: int, flow: Flow, block: nn.Module) -> tuple[Group, ...]:
    """Return the groups of updates of a block, from its input to its output. Raises Unfit if there is no such form."""
    if flow.result.sum is None:
        raise Unfit(f"block {at} does not return its input with the outputs of modules added")
    calls = {call.path: call for call in flow.calls}
    order = {call.path: place for place, call in enumerate(flow.calls)}
    groups = _groups(flow.result.sum, calls, block, order)
    if groups is None:
        raise Unfit(f"block {at} returns {shown(flow.result.sum)}, without the stream that it was given")
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


def shown(total: Sum) -> str:
    return " + ".join(f"{factor:g}·{name}" for name, factor in total.items()) or "nothing known"


@dataclass
class _Update:
    write: Write
    call: Call
    group: Group

    @property
    def modules(self) -> frozenset[str]:
        return self.call.result.modules


def block_of(at: int, flow: Flow, chain: Sequence[Group], block: nn.Module, mixers: frozenset[str]) -> BlockStructure:
    calls = {call.path: call for call in flow.calls}
    on_stream = {name for group in chain for name in (group.source, *(write.module for write in group.writes))}
    updates = [
        _Update(write, _with_inputs(calls[write.module], calls, on_stream), group)
        for group in chain
        for write in group.writes
    ]
    kinds = {u.write.module: ATTENTION if u.call.result.attends or u.write.module in mixers else MLP for u in updates}
    read = {update.write.module: update.call.result.reads for update in updates}
    mixing = [name for name, kind in kinds.items() if kind == ATTENTION]
    if len(mixing) > 1 and MLP not in kinds.values() and read[mixing[-1]] != read[mixing[0]]:
        # The last of several that mix tokens one after the other (RWKV) is in the place of the MLP.
        kinds[mixing[-1]] = MLP
    for update in updates:
        if elsewhere := {name for sums in update.call.result.reads for name, _ in sums} - on_stream:
            raise Unfit(
                f"the sublayer that ends in {update.write.module} of block {at} reads the stream plus "
                f"{', '.join(sorted(elsewhere))}, which is not added to it"
            )
    parts, reads = [], set()
    for kind in dict.fromkeys(kinds.values()):
        mine = [update for update in updates if kinds[update.write.module] == kind]
        others = frozenset().union(*(update.modules for update in updates if update not in mine))
        parts.append(_part(at, kind, mine, others, flow, block))
        reads |= {sums for update in mine for sums in update.call.result.reads}
    matrices = tuple(sorted(flow.products.items()))
    opening = chain[0].norm if not chain[0].writes else ""
    parallel = len(parts) > 1 and len(reads) == 1
    ran = {path: block.get_submodule(path) for path in flow.ran}
    caches = tuple(path for path, module in ran.items() if any(hasattr(module, name) for name in CACHE_SLOTS))
    return BlockStructure(
        tuple(parts), parallel, matrices, opening, chain[-1].factor, flow.several, caches,
        in_turn=_in_turn(chain, [[u for u in updates if kinds[u.write.module] == part.kind] for part in parts]),
        ends=_ends(chain, updates),
    )  # fmt: skip


def _with_inputs(call: Call, calls: Mapping[str, Call], on_stream: Collection[str]) -> Call:
    """Return a call with what it reads beside the stream as a part of it, where that is computed from the same stream.

    So ``x + f(x + g(x))``, where ``g(x)`` itself is not added to the stream, is ``x + h(x)``.
    """
    known = call.result
    beside = {name for sums in known.reads for name, _ in sums} - set(on_stream)
    inner = [_with_inputs(calls[name], calls, on_stream).result for name in beside if name in calls]
    reads = frozenset().union(*(fact.reads for fact in inner))
    own = {frozenset((name, share) for name, share in sums if name not in beside) for sums in known.reads}
    if not beside or len(inner) < len(beside) or own != reads:
        return call
    modules = known.modules.union(*(fact.modules for fact in inner))
    attends = known.attends or any(fact.attends for fact in inner)
    return replace(call, result=replace(known, modules=modules, reads=reads, attends=attends))


def _ends(chain: Sequence[Group], updates: Sequence[_Update]) -> tuple[str, ...]:
    """Return the parameters whose products go to the block's output alone: those of updates that none in it reads."""
    read = {name for update in updates for sums in update.call.result.reads for name, _ in sums}
    last = next((group for group in reversed(chain) if group.writes), None)
    ends: set[str] = set()
    others: set[str] = set()
    for update in updates:
        mine = ends if update.group is last and update.write.module not in read else others
        mine |= update.call.result.zero or set()
    return tuple(sorted(ends - others))


def _in_turn(chain: Sequence[Group], parts: Sequence[Sequence[_Update]]) -> bool:
    """Return whether each sublayer, given by its updates, first reads the stream with all updates of those before it.

    Norms on the stream are not looked at: what lies between them is not followed further.
    """
    read = {chain[-1].source: 1.0}
    for updates in parts:
        if max(updates[0].call.result.reads, key=len, default=key(read)) != key(read):
            return False
        read |= {update.write.module: update.write.scale for update in updates}
    return True


def _part(at: int, kind: str, updates: Sequence[_Update], others: frozenset[str], flow: Flow, block: nn.Module) -> Part:
    involved = frozenset().union(*(update.modules for update in updates))
    order = {call.path: place for place, call in enumerate(flow.calls)}
    readers = readers_of(flow, updates[0].call.result)
    if not readers:
        raise Unfit(f"the {kind} sublayer of block {at} does not read the residual stream")
    own = [path for path in involved if path not in others]
    outer = sorted((p for p in own if not any(p.startswith(f"{q}.") for q in own)), key=lambda p: order[p])
    entry = readers[0]
    last = updates[-1].write.module
    calls = {call.path: call for call in flow.calls}
    zero = all_of(update.call.result.zero for update in updates)
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
        zero=tuple(sorted(zero or ())),
    )


def readers_of(flow: Flow, fact: Fact) -> list[str]:
    """Return the modules behind a tensor that read the stream, the last form of it that was read, in order."""
    read = max(fact.reads, key=len, default=frozenset())
    return [path for path in flow.readers.get(read, ()) if path in fact.modules]


def _stub(returned: Any) -> Stub:
    several = len(returned) if isinstance(returned, tuple | list) else 0
    return Stub(several, next(iter(tensors_of(returned))).shape[-1], isinstance(returned, list))
