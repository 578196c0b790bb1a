"""Blocks whose modules a model keeps in several lists side by side, and runs one by one with sums in between.

Each block becomes a module of its own, which the model runs in place of the modules: it is given the stream and returns
it, so that it can be watched, passed by and run again like any other block. Weights stay where the model has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.model.nested import first
from pipeline.model.structure import Step, Structure, Stub

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Arguments of a module without the stream.
Given = tuple[tuple[Any, ...], dict[str, Any]]
# Relative difference of two states that rounding explains, in any dtype.
_ROUNDING = 0.02
_RUNNER = "side_by_side_runner"


class SideBySide(nn.Module):
    """A block of modules from several lists, which take the stream one after the other."""

    def __init__(self, steps: Sequence[Step], lists: Mapping[str, nn.ModuleList], place: int) -> None:
        super().__init__()
        self._steps = tuple(steps)
        for name, listed in lists.items():
            self.add_module(name, listed[place])
        self.moved(lists, place)

    def moved(self, lists: Mapping[str, nn.ModuleList], place: int) -> None:
        """Note in which lists, and where in them, the modules are now."""
        self.__dict__["_home"] = dict(lists), place

    def __setattr__(self, name: str, value: Any) -> None:
        """Put what stands in for a module into the model, too."""
        super().__setattr__(name, value)
        lists, place = self.__dict__.get("_home", ({}, 0))
        if name in lists:
            lists[name][place] = value

    def forward(self, hidden_states: torch.Tensor, others: Mapping[str, Given]) -> torch.Tensor:
        """Return the stream behind the block; ``others`` are the further arguments of each module, by its name."""
        x = hidden_states
        for step in self._steps:
            args, kwargs = others[step.name]
            y = first(self.get_submodule(step.name)(x, *args, **kwargs))
            x = x + y if step.adds else y
        return x


class _Stand(nn.Module):
    """Stands in a list for a module of a block while the model runs."""

    def __init__(self, runner: Runner, place: int, step: Step) -> None:
        super().__init__()
        self.__dict__["_at"] = runner, place, step

    def __getattr__(self, name: str) -> Any:
        runner, place, step = self.__dict__["_at"]
        return getattr(runner.lists[step.name][place], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        runner, place, step = self.__dict__["_at"]
        return runner.reached(place, step, args, kwargs)


class Runner:
    """Lets the module that holds the lists run whole blocks, in each of its forward passes.

    The model's own code goes on as it is: in the place of modules whose output it adds to the stream it gets zeros, in
    that of the others the stream as it was, and in that of the last one the stream behind the block.
    """

    def __init__(self, holder: nn.Module, steps: Sequence[Step]) -> None:
        self.holder, self.steps = holder, tuple(steps)
        self.lists: dict[str, nn.ModuleList] = {}
        self.blocks = nn.ModuleList()
        self._others: dict[str, Given] = {}
        self._caches = True
        self.keep(range(len(list(holder.get_submodule(steps[0].name).children()))))
        holder.register_forward_pre_hook(self.enter, with_kwargs=True)
        holder.register_forward_hook(self.leave, always_call=True)

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the blocks at these places, in the lists of the model as well."""
        blocks = list(self.blocks)
        for step in self.steps:
            listed = self.holder.get_submodule(step.name)
            assert isinstance(listed, nn.ModuleList)
            self.lists[step.name] = nn.ModuleList([listed[place] for place in places])
            self.holder.add_module(step.name, self.lists[step.name])
        if not blocks:
            blocks = [SideBySide(self.steps, self.lists, place) for place in places]
        self.blocks = nn.ModuleList([blocks[place] for place in places])
        for place, block in enumerate(self.blocks):
            if isinstance(block, SideBySide):
                block.moved(self.lists, place)

    def enter(self, holder: nn.Module, args: Any, kwargs: Any) -> None:
        """Put the stand-ins in place."""
        self._others.clear()
        self._caches = kwargs.get("use_cache") is not False
        for step in self.steps:
            stands = [_Stand(self, place, step) for place in range(len(self.blocks))]
            holder.add_module(step.name, nn.ModuleList(stands))

    def leave(self, holder: nn.Module, args: Any, output: Any) -> None:
        """Put the modules back."""
        for name, listed in self.lists.items():
            holder.add_module(name, listed)

    def reached(self, place: int, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what the model's code gets from a module; run the block if it is the last one of it."""
        x, args = args[0], args[1:]
        if not self._caches:
            # Deferred: a job that finds its results loads no model.
            from transformers import Cache

            # A cache that is made in any case would grow when a block runs again.
            args = tuple(None if isinstance(value, Cache) else value for value in args)
            kwargs = {name: None if isinstance(value, Cache) else value for name, value in kwargs.items()}
        self._others[step.name] = args, kwargs
        if step == self.steps[-1]:
            others, self._others = self._others, {}
            return step.stub.formed(first(self.blocks[place](x, others)))
        return step.stub.formed(torch.zeros_like(x) if step.adds else x)


def runner_of(model: PreTrainedModel, structure: Structure) -> Runner:
    """Return what runs the blocks of a model whose structure has steps; it is made at the first call."""
    found = model.__dict__.get(_RUNNER)
    if found is None:
        holder = model.get_submodule(structure.blocks_name.rpartition(".")[0])
        found = model.__dict__[_RUNNER] = Runner(holder, structure.steps)
    return found


@dataclass(frozen=True)
class _Call:
    place: int
    name: str
    given: torch.Tensor | None
    returned: Any

    @property
    def result(self) -> torch.Tensor | None:
        value = first(self.returned)
        return value if isinstance(value, torch.Tensor) else None


def steps_of(model: PreTrainedModel, ids: torch.Tensor, holder: str, names: Sequence[str]) -> tuple[Step, ...]:
    """Return what a model does with the modules of lists side by side; empty if they are no blocks.

    In one pass, each module has to be given the stream first, as it was, with the output of the module before it added,
    or as that output; and the last one of each block has to return the stream.
    """
    calls: list[_Call] = []

    def note(name: str, place: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = args[0] if args and isinstance(args[0], torch.Tensor) else None
            calls.append(_Call(place, name, None if given is None else given.clone(), _cloned(output)))

        return hook

    hooks = [
        module.register_forward_hook(note(name, place), with_kwargs=True)
        for name in names
        for place, module in enumerate(model.get_submodule(f"{holder}.{name}" if holder else name).children())
    ]
    try:
        model(ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    order = [call.name for call in calls if call.place == 0]
    whole = [(place, name) for place in range(len(calls) // max(1, len(order))) for name in order]
    if [(call.place, call.name) for call in calls] != whole or set(order) != set(names):
        return ()
    adds = [_adds(call, following) for call, following in itertools.pairwise(calls)] + [False]
    per_block = [tuple(adds[at : at + len(order)]) for at in range(0, len(calls), len(order))]
    if None in adds or len(set(per_block)) > 1 or per_block[0][-1]:
        return ()
    return tuple(
        Step(call.name, bool(add), Stub.of(call.returned, call.result.shape[-1] if call.result is not None else 0))
        for call, add in zip(calls, per_block[0], strict=False)
    )


def _cloned(output: Any) -> Any:
    """Return an output whose first tensor does not change any more."""
    if isinstance(output, tuple | list):
        return type(output)([_cloned(output[0]), *output[1:]])
    return output.clone() if isinstance(output, torch.Tensor) else output


def _adds(call: _Call, following: _Call) -> bool | None:
    """Return whether the next module is given the stream plus this one's output, or that alone; None for neither."""
    x, y, z = call.given, call.result, following.given
    if x is None or y is None or z is None or not x.shape == y.shape == z.shape:
        return None
    near = _ROUNDING * z.abs().max()
    if (z - y).abs().max() <= near:
        return False
    return True if (z - x - y).abs().max() <= near else None
