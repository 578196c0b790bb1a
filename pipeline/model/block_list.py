"""Where the blocks of a model are: in one list, or their modules in several lists side by side."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from pipeline.model.block_form import Unfit
from pipeline.model.short_pass import TOKENS, tokens
from pipeline.model.side_by_side import runner_of, steps_of
from pipeline.model.structure import Step, Structure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Relative difference of two passes that do the same in the same order.
_EQUAL = 1e-4


@dataclass(frozen=True)
class BlockList:
    """The blocks of a model: the path of the list, and the blocks in it, of which text does not pass the ``idle`` ones.

    ``steps`` are the modules of each block where these lie in several lists; the path is then that of the largest.
    """

    name: str
    blocks: tuple[nn.Module, ...]
    idle: tuple[int, ...]
    steps: tuple[Step, ...] = ()


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
        try:
            out = model(tokens(model), use_cache=False)[0]
        except torch.OutOfMemoryError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise Unfit(f"it does not read {TOKENS} token ids alone ({type(error).__name__}: {error})") from error
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
