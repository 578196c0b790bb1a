"""The data flow of one forward pass: which modules' outputs are added to the residual stream, and by what factor.

Every tensor is followed at the level of PyTorch's operators, as a weighted sum of sources: the stream that a block was
given, and the outputs of modules. Whatever is not linear in these is a source of its own once a module returns it. So a
block's output shows what was added to the stream, whatever the code in between looks like.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.model.matrix_forms import form_of
from pipeline.model.nested import floats_of, tensors_of
from pipeline.model.operators import FACTORS, KEEP_ZERO, PRODUCTS, SAME, SUMS, ZEROS, aten, is_attention
from pipeline.model.zeros import all_of, first_of

# The stream that a block was given, as the source of a sum.
STREAM = "<stream>"
# Factors by source, and its form that can be compared and hashed.
Sum = Mapping[str, float]
Key = frozenset[tuple[str, float]]


@dataclass(frozen=True)
class Fact:
    """What is known of a tensor.

    ``sum`` are its sources with their factors; None if it is not linear in any. ``modules`` took part in computing it
    since the stream was read, ``reads`` are the sums of the stream that they read, and ``attends`` says that it was
    computed by attention. Setting the parameters ``zero`` to zero makes the tensor zero; None if that is not known.
    """

    sum: Sum | None = None
    modules: frozenset[str] = frozenset()
    reads: frozenset[Key] = frozenset()
    attends: bool = False
    zero: frozenset[str] | None = None


@dataclass(frozen=True)
class Call:
    """One call of a module: its path, what is known of its first input and output, and what it returned.

    ``inner`` is the module inside it whose output it hands on, empty if there is none.
    """

    path: str
    given: Fact
    result: Fact
    returned: Any
    inner: str


@dataclass
class Flow:
    """What happened in one section: calls in the order in which they ended, readers of the stream, matrix products.

    ``readers`` are the paths of modules by the sum of the stream that they read. ``products`` say of each parameter
    that was multiplied with whether it holds its matrix as (in, out), ``forms`` the shape of that matrix as it lies in
    memory, None if there are several. ``several`` is the length of the tuple that the section returned, 0 for a tensor,
    ``ran`` are the paths of all modules that ran, ``used`` the parameters that any operator used, ``unnamed`` the
    modules that added to the stream what no module returned.
    """

    calls: list[Call] = field(default_factory=list)
    readers: dict[Key, list[str]] = field(default_factory=dict)
    products: dict[str, bool] = field(default_factory=dict)
    forms: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    result: Fact = Fact()
    several: int = 0
    ran: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    unnamed: list[str] = field(default_factory=list)


class Follower(TorchDispatchMode):
    """Follows the tensors of one section of a model that begins with the stream.

    ``names`` are the paths of the section's modules, ``parameters`` its parameters by name. The outputs of the modules
    ``renewing`` are the stream anew: norms on the stream itself. Where ``rows`` may be left out, some of the stream's
    tokens count as the stream, too.
    """

    def __init__(
        self,
        names: Mapping[nn.Module, str],
        parameters: Mapping[str, torch.Tensor],
        renewing: Collection[str] = (),
        rows: bool = False,
    ) -> None:
        super().__init__()
        self.flow = Flow()
        self._names, self._parameters = names, parameters
        self._streams = frozenset({STREAM, *renewing})
        self._offloaded = any(parameter.is_meta for parameter in parameters.values())
        self._running: list[nn.Module] = []
        self._places = sorted((p.data_ptr(), p.data_ptr() + p.nbytes, name) for name, p in parameters.items())
        self._lengths: frozenset[int] = frozenset()
        self._rows = rows
        self._facts: dict[int, Fact] = {}
        # Tensors are known by their identity, so they must not be freed meanwhile.
        self._alive: list[torch.Tensor] = []

    def begin(self, stream: torch.Tensor, tokens: int) -> None:
        """Make a tensor (B, ·, D) the section's stream in a pass of that many tokens."""
        self._lengths = frozenset({tokens, stream.shape[1]})
        self._learn(stream, Fact({STREAM: 1.0}))

    def fact(self, tensor: torch.Tensor) -> Fact:
        """Return what is known of a tensor."""
        if (known := self._facts.get(id(tensor))) is not None:
            return known
        name = self.parameter_of(tensor)
        if name is None:
            return Fact()
        self.flow.used.add(name)
        return Fact(zero=frozenset({name}))

    def holds_stream(self, fact: Fact) -> bool:
        """Return whether a tensor is the stream, perhaps with updates."""
        return fact.sum is not None and not self._streams.isdisjoint(fact.sum)

    def parameter_of(self, tensor: torch.Tensor) -> str | None:
        """Return the name of the parameter whose memory a tensor is in."""
        at = tensor.data_ptr()
        place = bisect_right(self._places, (at, float("inf"), "")) - 1
        if tensor.numel() and place >= 0 and self._places[place][0] <= at < self._places[place][1]:
            return self._places[place][2]
        return self._brought_in(at) if self._offloaded else None

    def _brought_in(self, at: int) -> str | None:
        """Return the name of a parameter of the modules that run now, which was brought in from elsewhere for them."""
        for module in reversed(self._running):
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.data_ptr() <= at < parameter.data_ptr() + parameter.nbytes:
                    return f"{self._names[module]}.{name}"
        return None

    # --- operators ---------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operator, tensors = func.overloadpacket, list(tensors_of((args, kwargs)))
        facts = [self.fact(x) for x in tensors]
        modules, reads, attends = self._behind(facts)
        total = self._sum(operator, args, kwargs)
        zero = self._zero(operator, args, tensors, facts)
        out = func(*args, **kwargs)
        if operator is aten.slice and (out.shape == args[0].shape or (self._rows and args[1:2] == (1,))):
            total = self._sum_of(args[0])
        for result in tensors_of(out):
            attends = attends or is_attention(operator, result, self._lengths)
            self._learn(result, Fact(total, modules, reads, attends, zero))
        return out

    def _learn(self, tensor: torch.Tensor, fact: Fact) -> None:
        self._facts[id(tensor)] = fact
        self._alive.append(tensor)

    def _behind(self, facts: Iterable[Fact]) -> tuple[frozenset[str], frozenset[Key], bool]:
        """Return modules and sums of the stream behind several tensors, and whether one was computed by attention."""
        modules: set[str] = set()
        reads: set[Key] = set()
        attends = False
        for fact in facts:
            if fact.sum is not None and self.holds_stream(fact):
                reads.add(key(fact.sum))
            else:
                modules |= fact.modules
                reads |= fact.reads
                attends |= fact.attends
        return frozenset(modules), frozenset(reads), attends

    def _sum(self, operator: Any, args: Any, kwargs: Mapping[str, Any]) -> Sum | None:
        """Return the sum that an operator's result is, if it is linear in known sources."""
        if operator in SAME:
            return self._sum_of(args[0])
        if operator in SUMS:
            one, other = self._sum_of(args[0]), self._sum_of(args[1])
            if self._running and None in (one, other) and not self._streams.isdisjoint(one or other or ()):
                self.flow.unnamed.append(self._names[self._running[-1]])
            factor = SUMS[operator] * float(kwargs.get("alpha", 1))
            return None if one is None or other is None else _added(one, other, factor)
        if operator in FACTORS:
            x, by = args[:2]
            if self._sum_of(x) is None and operator in (aten.mul, aten.mul_):
                x, by = by, x
            known, share_of = self._sum_of(x), self._number(by)
            if known is not None and share_of:
                return {name: share * share_of ** FACTORS[operator] for name, share in known.items()}
        return None

    def _number(self, value: Any) -> float | None:
        """Return a factor: a number, or the one that a tensor holds; a mask that hides nothing counts as one."""
        if not isinstance(value, torch.Tensor):
            return float(value) if isinstance(value, int | float) else None
        if value.numel() == 1:
            return float(value)
        mask = self.parameter_of(value) is None and value.numel() and bool((value == 1).all())
        return 1.0 if mask else None

    def _sum_of(self, value: Any) -> Sum | None:
        return self.fact(value).sum if isinstance(value, torch.Tensor) else None

    def _zero(self, operator: Any, args: Any, tensors: list[torch.Tensor], facts: list[Fact]) -> frozenset[str] | None:
        """Return parameters that make an operator's result zero when they are zero."""
        if operator in ZEROS:
            return frozenset()
        known = [fact.zero for x, fact in zip(tensors, facts, strict=True) if x.is_floating_point()]
        if operator in PRODUCTS:
            matrices = self._matrices(operator, tensors)
            biases = known[:1] if operator in (aten.addmm, aten.baddbmm) else known[2:]
            factors = [frozenset(matrices)] if matrices else [zero for zero in known if zero not in biases]
            return all_of([first_of(factors), *biases])
        if operator in FACTORS:
            return first_of(known)
        if operator is aten.native_layer_norm:
            return all_of([known[0], *known[2:3]])
        if operator in SUMS:
            return all_of(known) if len(known) == 2 or not self._number(args[1]) else None
        return all_of(known) if operator in KEEP_ZERO and known else None

    def _matrices(self, operator: Any, tensors: list[torch.Tensor]) -> list[str]:
        """Note which parameters a product multiplies with; return their names."""
        found = []
        first = 1 if operator in (aten.addmm, aten.baddbmm) else 0
        for place, x in enumerate(tensors[first : first + 2]):
            name = self.parameter_of(x)
            whole = self._parameters.get(name) if name is not None else None
            if name is None or whole is None or whole.ndim < 2 or x.ndim < 2:
                continue
            found.append(name)
            # The right operand is (in, out), so that a parameter that holds (out, in) comes transposed.
            transposed = x.stride(-2) < x.stride(-1)
            plain = operator in (aten.convolution, aten.linear)
            self.flow.products.setdefault(name, not plain and transposed != bool(place))
            form = form_of(whole, x)
            if self.flow.forms.setdefault(name, form) != form:
                self.flow.forms[name] = None
        return found

    # --- modules -----------------------------------------------------------------------------------------------

    def entered(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Note that a module begins, and which sum of the stream it reads."""
        if (path := self._names.get(module)) is not None:
            self.flow.ran.append(path)
            self._running.append(module)
            for fact in map(self.fact, floats_of((args, kwargs))):
                if fact.sum is not None and self.holds_stream(fact):
                    self.flow.readers.setdefault(key(fact.sum), []).append(path)

    def left(self, module: nn.Module, args: Any, kwargs: Any, returned: Any) -> None:
        """Note that a module ends. Its output is a source, unless it holds the stream or is one of its inputs."""
        if (path := self._names.get(module)) is None:
            return
        self._running.pop()
        given, results = list(floats_of((args, kwargs))), list(floats_of(returned))
        if not results or any(results[0] is x for x in given):
            return
        if any(self.holds_stream(self.fact(result)) for result in results) and path not in self._streams:
            first = self.fact(given[0]) if given else Fact()
            self.flow.calls.append(Call(path, first, self.fact(results[0]), returned, ""))
            return
        inner = next(iter(self.fact(results[0]).sum or {}), "")
        inner = inner if self.fact(results[0]).sum == {inner: 1.0} and inner.startswith(f"{path}.") else ""
        for place, result in enumerate(results):
            known = self.fact(result)
            if path in self._streams and not place:
                self._learn(result, Fact({path: 1.0}))
            else:
                total = known.sum if place else {path: 1.0}
                name = self.parameter_of(result)
                if place and total is None and name is not None and name.startswith(f"{path}."):
                    # A parameter that it hands on, for others to add.
                    total = {name: 1.0}
                self._learn(result, Fact(total, known.modules | {path}, known.reads, known.attends, known.zero))
        first = self.fact(given[0]) if given else Fact()
        self.flow.calls.append(Call(path, first, self.fact(results[0]), returned, inner))


def key(of: Sum) -> Key:
    """Return a form of a sum that can be compared and hashed."""
    return frozenset(of.items())


def _added(one: Sum, other: Sum, factor: float) -> Sum:
    total = dict(one)
    for name, share in other.items():
        total[name] = total.get(name, 0.0) + factor * share
    return total
