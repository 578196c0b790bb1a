"""The form of a block, read from the data flow of one pass: what it adds to the residual stream, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.model.dataflow import STREAM, Call, Fact, Flow, Sum, key
from pipeline.model.idle import idle_modules
from pipeline.model.nested import tensors_of
from pipeline.model.structure import ATTENTION, CACHE_SLOTS, MLP, BlockStructure, Part, Stub, Write
from pipeline.model.zeros import all_of

if TYPE_CHECKING:
    from torch import nn


class Unfit(ValueError):
    """A model does not have the form that the pipeline knows; the message says where and why."""


@dataclass(frozen=True)
class Group:
    """Updates that are added to one form of the stream: the block's own, or what a norm made of it.

    ``source`` is that form, ``norm`` the norm on the sum, empty if the sum is the block's output, ``factor`` what the
    whole sum is multiplied by, and ``carry`` what that form alone is multiplied by.
    """

    source: str
    writes: tuple[Write, ...]
    norm: str = ""
    factor: float = 1.0
    carry: float = 1.0


def chain_of(at: int, flow: Flow, block: nn.Module) -> tuple[Group, ...]:
    """Return the groups of updates of a block, from its input to its output. Raises Unfit if there is no such form."""
    if flow.result.sum is None:
        raise Unfit(f"block {at} does not return its input with the outputs of modules added")
    groups = _groups(flow.result.sum, flow, block)
    if groups is None:
        unnamed = "".join(f": {path} adds to the stream what no module of its own returns" for path in flow.unnamed[:1])
        raise Unfit(f"block {at} returns {shown(flow.result.sum)}, without the stream that it was given{unnamed}")
    for group in groups:
        for write in group.writes:
            if sum(call.path == write.module for call in flow.calls) > 1:
                raise Unfit(f"block {at} runs {write.module} more than once")
    return tuple(groups)


def check_carried(chains: Sequence[Sequence[Group]], normed: bool) -> None:
    """Raise Unfit if a block multiplies its stream, and no norm is what the next block makes of it first of all.

    ``normed`` says that a norm comes first behind the last block. ``N(a·x + m·f(x))`` is a norm on a sum, which
    without the sublayer is one on the stream; ``a·x + m·f(x)`` alone is a stream that fades or grows by itself.
    """
    follows = [bool(following[0].norm) and not following[0].writes for following in chains[1:]] + [normed]
    for at, (chain, norm) in enumerate(zip(chains, follows, strict=True)):
        if chain[-1].carry != 1 and not norm:
            last = chain[-1]
            terms = {last.source.strip("<>"): last.carry} | {w.module: w.scale * last.factor for w in last.writes}
            said = f"it returns {shown(terms)}, without a norm on the sum"
            raise Unfit(f"block {at} scales its residual stream by {last.carry:g}: {said}")


def _groups(total: Sum, flow: Flow, block: nn.Module) -> list[Group] | None:
    calls = {call.path: call for call in flow.calls}
    order = {call.path: place for place, call in enumerate(flow.calls)}

    def group(source: str) -> Group:
        share = total[source]
        factor, carry = (share, 1.0) if len(set(total.values())) == 1 else (1.0, share)
        writes = [
            Write(name, own / factor, _beside(name, total, calls[name].returned, block))
            for name, own in total.items()
            if name != source and name in calls
        ]
        writes.sort(key=lambda write: order.get(write.module, -1))
        return Group(source, tuple(writes), "", factor, carry)

    if STREAM in total:
        return [group(STREAM)]
    for source in total:
        call = calls.get(source)
        while call is not None and call.inner:
            call = calls[call.inner]
        if call is None or not is_norm(block.get_submodule(call.path)):
            continue
        # A norm that is applied again, to what is computed from its first output, is that of the first sum.
        first = next(each for each in flow.calls if each.path == call.path)
        for given in (call.given.sum, first.given.sum):
            if given is None or call.path in given:
                continue
            earlier = _groups(given, flow, block)
            if earlier is not None:
                return [*earlier[:-1], _normed(earlier[-1], call.path), group(source)]
    return None


def _check_closed(at: int, norm: str, flow: Flow) -> None:
    """Raise Unfit if a norm on the sum is applied again to anything but what is computed from its first output."""
    own, calls = {key({norm: 1.0})}, {call.path: call for call in flow.calls}
    for call in [call for call in flow.calls if call.path == norm][1:]:
        terms = [calls[name].result for name in call.given.sum or () if name != norm and name in calls]
        reads = call.given.reads.union(*(term.reads for term in terms))
        if STREAM in (call.given.sum or ()) or not reads <= own:
            raise Unfit(f"block {at} runs {norm} more than once")


def _normed(group: Group, norm: str) -> Group:
    """Return a group of updates with a norm on its sum."""
    writes = tuple(replace(write, scale=write.scale * group.factor) for write in group.writes)
    return Group(group.source, writes, norm, carry=group.carry * group.factor)


def _beside(path: str, total: Sum, returned: Any, block: nn.Module) -> int:
    """Return which of the values that a module returns is a parameter that is added like its output; 0 for none."""
    added = [name for name, share in total.items() if name.startswith(f"{path}.") and share == total[path]]
    parameters = {id(block.get_parameter(name)) for name in added if name in dict(block.named_parameters())}
    several = returned if isinstance(returned, tuple | list) else ()
    return next((at for at, value in enumerate(several) if at and id(value) in parameters), 0)


def is_norm(module: nn.Module) -> bool:
    """Return whether a module can be a norm: it has no matrices."""
    return all(parameter.ndim < 2 for parameter in module.parameters())


def shown(total: Sum) -> str:
    return " + ".join(f"{factor:g}·{name}" for name, factor in total.items()) or "nothing known"


@dataclass(frozen=True)
class _Update:
    """What one module adds to the stream, with the parameter ``beside`` its output, empty if there is none."""

    write: Write
    call: Call
    group: Group
    beside: str

    @property
    def modules(self) -> frozenset[str]:
        return self.call.result.modules

    @property
    def added(self) -> list[str]:
        """Names of what it adds, as in sums."""
        return [self.write.module, *filter(None, [self.beside])]

    @property
    def zero(self) -> frozenset[str] | None:
        """Parameters that make it zero; None if none do."""
        known = self.call.result.zero
        return None if known is None else frozenset(known) | set(filter(None, [self.beside]))


def block_of(at: int, flow: Flow, chain: Sequence[Group], block: nn.Module, mixers: frozenset[str]) -> BlockStructure:
    for norm in {group.norm for group in chain if group.norm}:
        _check_closed(at, norm, flow)
    calls = {call.path: call for call in flow.calls}
    names = {id(parameter): name for name, parameter in block.named_parameters()}
    updates = [
        _Update(write, call, group, names[id(call.returned[write.beside])] if write.beside else "")
        for group in chain
        for write in group.writes
        for call in [calls[write.module]]
    ]
    on_stream = {group.source for group in chain} | {name for update in updates for name in update.added}
    updates = [replace(update, call=_with_inputs(update.call, calls, on_stream)) for update in updates]
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
    whole = dict(block.named_parameters())
    forms = {name: form for name, form in flow.forms.items() if form not in (None, tuple(whole[name].shape))}
    caches = tuple(path for path, module in ran.items() if any(hasattr(module, name) for name in CACHE_SLOTS))
    return BlockStructure(
        tuple(parts), parallel, matrices, opening, chain[-1].factor, flow.several, caches,
        in_turn=_in_turn(chain, [[u for u in updates if kinds[u.write.module] == part.kind] for part in parts]),
        ends=_ends(chain, updates), forms=tuple(sorted(forms.items())), idle=idle_modules(block, flow),
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
        mine |= update.zero or set()
    return tuple(sorted(ends - others))


def _in_turn(chain: Sequence[Group], parts: Sequence[Sequence[_Update]]) -> bool:
    """Return whether each sublayer, given by its updates, first reads the stream with all updates of those before it.

    Norms on the stream are not looked at: what lies between them is not followed further.
    """
    read = {chain[-1].source: 1.0}
    for updates in parts:
        if max(updates[0].call.result.reads, key=len, default=key(read)) != key(read):
            return False
        read |= {name: update.write.scale for update in updates for name in update.added}
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
    zero = all_of(update.zero for update in updates)
    return Part(
        kind=kind,
        writes=tuple(update.write for update in updates),
        entry=entry,
        modules=tuple(outer),
        stubs=tuple(_stub(calls[path].returned) for path in outer),
        norm=entry if is_norm(block.get_submodule(entry)) else "",
        post_norm=last if last != entry and is_norm(block.get_submodule(last)) else "",
        closing=updates[-1].group.norm,
        carry=updates[-1].group.carry,
        mixer=kind == ATTENTION and not any(update.call.result.attends for update in updates),
        zero=tuple(sorted(zero or ())),
    )


def readers_of(flow: Flow, fact: Fact) -> list[str]:
    """Return the modules behind a tensor that read the stream, the last form of it that was read, in order."""
    read = max(fact.reads, key=len, default=frozenset())
    return [path for path in flow.readers.get(read, ()) if path in fact.modules]


def _stub(returned: Any) -> Stub:
    return Stub.of(returned, next(iter(tensors_of(returned))).shape[-1])
