"""The structure of a decoder as it was found on the model: its blocks, what each adds to the residual stream, its head.

Plain facts that can be stored. Imports no model library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

ATTENTION, MIXER, MLP = "attention", "mixer", "mlp"
SUBLAYERS = (ATTENTION, MLP)
BLOCK = "block"
# Attributes in which modules keep the number of their slot in the cache.
CACHE_SLOTS = ("layer_idx", "layer_id")


@dataclass(frozen=True)
class Stub:
    """What a module returns, so that zeros can stand in for it.

    ``several`` is the length of a returned tuple, or list if ``listed``, 0 for a tensor alone; ``width`` the size of
    its last dimension. ``handed`` are states among several that come from an argument: the place of each, and the
    argument's place or name.
    """

    several: int
    width: int
    listed: bool = False
    handed: tuple[tuple[int, int | str], ...] = ()

    @classmethod
    def of(cls, returned: Any, width: int) -> Stub:
        """Return the form of what a module returned."""
        several = len(returned) if isinstance(returned, tuple | list) else 0
        return cls(several, width, isinstance(returned, list))

    def formed(self, value: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """Return a tensor in the form of the module's output, alone or the first of several, for its arguments."""
        if not self.several:
            return value
        values = [value, *[None] * (self.several - 1)]
        for place, source in self.handed:
            values[place] = kwargs.get(source) if isinstance(source, str) else args[source]
        return values if self.listed else tuple(values)


@dataclass(frozen=True)
class Step:
    """A module of every block, where a model keeps these in lists side by side, one of each list for each block.

    It is given the stream. Its output is added to the stream if it ``adds``, and is the stream otherwise.
    """

    name: str
    adds: bool
    stub: Stub


@dataclass(frozen=True)
class Write:
    """A module whose output, times ``scale``, is added to the residual stream.

    Some return several, of which the one at ``beside`` is added, too: a bias. 0 if there is none.
    """

    module: str
    scale: float = 1.0
    beside: int = 0


@dataclass(frozen=True)
class Part:
    """One sublayer of one block; names are relative to the block.

    ``writes`` add its update to the stream. ``entry`` is the module whose first input is the stream before it.
    ``modules`` compute the update and nothing else, in order, norms included; zeros of the shape in ``stubs`` may stand
    in for them. ``norm`` is the norm that reads the stream, ``post_norm`` one between the sublayer and the addition
    (both empty if there is none). ``closing`` is a norm on the sum itself (post-norm: ``LN(a·x + m·f(x))``), and
    ``carry`` the factor ``a`` of the stream in that sum, 1 where no norm follows on it. A norm that is applied again to
    what is computed from its output, as behind an adapter, ends there. Setting the
    parameters ``zero`` to zero makes the update zero; empty if none do. ``mixer`` says that it mixes tokens in another
    way than by attention.
    """

    kind: str
    writes: tuple[Write, ...]
    entry: str
    modules: tuple[str, ...]
    stubs: tuple[Stub, ...]
    norm: str = ""
    post_norm: str = ""
    closing: str = ""
    carry: float = 1.0
    zero: tuple[str, ...] = ()
    mixer: bool = False

    @property
    def name(self) -> str:
        """What people call it: attention, mixer or mlp."""
        return MIXER if self.mixer else self.kind


@dataclass(frozen=True)
class BlockStructure:
    """One block: its sublayers in the order in which they write to the stream, at most one of each kind.

    Several attentions, or MLPs, count as one sublayer, which writes several times, perhaps by turns with the other.
    In a ``parallel`` block all sublayers read the same stream. ``opening`` is a norm on the stream itself before all of
    them, empty if there is none, and ``factor`` what the stream is multiplied by after all of them. ``matrices`` are
    the parameters that are multiplied with, each with whether it is stored as (in, out), and ``forms`` the shapes of
    those that hold matrices of another shape than their own. ``several`` is the length of the tuple that the block
    returns, 0 for a tensor alone. ``caches`` are the modules that have a slot in the cache.
    The model multiplies the block's output by ``passed`` before it goes on. ``rescaled`` are parameters that its first
    pass multiplied, each with the factor. ``in_turn`` says that each sublayer begins with the stream as the one before
    it left it. The products with the parameters ``ends`` go to the block's output alone. No text passes the modules
    ``idle``.
    """

    parts: tuple[Part, ...]
    parallel: bool
    matrices: tuple[tuple[str, bool], ...]
    opening: str = ""
    factor: float = 1.0
    several: int = 0
    caches: tuple[str, ...] = ()
    passed: float = 1.0
    rescaled: tuple[tuple[str, float], ...] = ()
    in_turn: bool = True
    ends: tuple[str, ...] = ()
    forms: tuple[tuple[str, tuple[int, ...]], ...] = ()
    idle: tuple[str, ...] = ()

    def part(self, kind: str) -> Part | None:
        """Return the sublayer of a kind, or None if this block has none."""
        return next((part for part in self.parts if part.kind == kind), None)

    @property
    def norms(self) -> tuple[str, ...]:
        """Norms on the stream itself."""
        found = [self.opening, *(part.closing for part in self.parts)]
        return tuple(dict.fromkeys(name for name in found if name))

    @property
    def chained(self) -> bool:
        """Whether each sublayer reads exactly what the one before it wrote."""
        plain = all(not part.closing and part.carry == 1 for part in self.parts)
        return self.in_turn and plain and not self.parallel and self.factor == self.passed == 1


@dataclass(frozen=True)
class Structure:
    """A model that adds sublayers to a residual stream, block by block.

    ``blocks_name`` is the path of its block list, ``base`` that of the part without the output projection (empty for
    the model itself). ``tail`` are the modules that lead from the last block's output to the output projection, in
    order, ``after_base`` those of them outside of the base. ``head_scale`` and ``head_cap`` say what becomes of its
    logits: ``scale·z``, then ``cap·tanh(z / cap)``. ``head_wrapper`` is the module around an output projection that
    computes more before it, empty if there is none. ``mixers_only`` says that the dense model has no attention. A model
    without an output projection is an ``encoder``. ``idle`` are the places in the block list of blocks that text does
    not pass; all others count from 0, without these.

    Blocks may pass on ``streams`` states for each token, all first states before all second ones, of which the one
    number ``stream`` gives the logits. ``steps`` are the modules of each block where a model keeps these in several
    lists; ``blocks_name`` is then one of the lists.
    """

    blocks_name: str
    blocks: tuple[BlockStructure, ...]
    tail: tuple[str, ...] = ()
    after_base: tuple[str, ...] = ()
    head_scale: float = 1.0
    head_cap: float | None = None
    head_wrapper: str = ""
    mixers_only: bool = False
    encoder: bool = False
    base: str = ""
    idle: tuple[int, ...] = ()
    stream: int = 0
    streams: int = 1
    steps: tuple[Step, ...] = ()

    @property
    def lists(self) -> tuple[str, ...]:
        """The paths of the lists that hold the blocks, or their modules."""
        holder = self.blocks_name.rpartition(".")[0]
        own = [f"{holder}.{step.name}" if holder else step.name for step in self.steps]
        return tuple(own) or (self.blocks_name,)

    def name_of(self, layer: int, path: str) -> str:
        """Return the name in the model of a module or parameter of a block, e.g. ``model.layers.0.mlp``."""
        if not self.steps:
            return f"{self.blocks_name}.{self.places[layer]}.{path}"
        name, _, rest = path.partition(".")
        holder = self.blocks_name.rpartition(".")[0]
        return ".".join(part for part in (holder, name, str(self.places[layer]), rest) if part)

    def own_name(self, layer: int, name: str) -> str:
        """Return the path within its block of a module or parameter of the model: the inverse of `name_of`."""
        if not self.steps:
            return name.removeprefix(f"{self.blocks_name}.{self.places[layer]}.")
        holder = self.blocks_name.rpartition(".")[0]
        listed, _, rest = name.removeprefix(f"{holder}.").partition(f".{self.places[layer]}.")
        return f"{listed}.{rest}"

    @property
    def places(self) -> tuple[int, ...]:
        """The place of every block in the block list."""
        return tuple(at for at in range(len(self.blocks) + len(self.idle)) if at not in self.idle)

    def left(self, kept: Sequence[int]) -> list[int]:
        """Return the places in the block list of the blocks ``kept`` and of those that are idle."""
        return sorted([*self.idle, *(self.places[layer] for layer in kept)])

    @property
    def chained(self) -> bool:
        """Whether each sublayer of each block reads exactly what the one before it wrote."""
        return all(block.chained and not (at and block.opening) for at, block in enumerate(self.blocks))


def keep(structure: Structure, kept: Sequence[int]) -> Structure:
    """Return the structure with these blocks alone, beside those that are idle."""
    left = structure.left(kept)
    idle = tuple(left.index(place) for place in structure.idle)
    return replace(structure, blocks=tuple(structure.blocks[layer] for layer in kept), idle=idle)
