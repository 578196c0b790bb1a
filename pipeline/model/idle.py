"""Modules of a block that no text passes, such as the cross-attention of a decoder without an encoder."""

from __future__ import annotations

from torch import nn

from pipeline.model.dataflow import Flow


def idle_modules(block: nn.Module, flow: Flow) -> tuple[str, ...]:
    """Return the outermost modules with parameters of which one pass neither ran one nor used a weight.

    Modules in a list of which others run are left out: tokens choose between them, as between experts.
    """
    ran = {*flow.ran, *(name.rpartition(".")[0] for name in flow.used)}
    found: list[str] = []
    for path, module in block.named_modules():
        holds = any(True for _ in module.parameters())
        if not path or not holds or any(_within(path, outer) for outer in found):
            continue
        if not any(_within(other, path) for other in ran) and not _chosen(block, path, ran):
            found.append(path)
    return tuple(found)


def _chosen(block: nn.Module, path: str, ran: set[str]) -> bool:
    """Return whether a module is, or lies in, one of several in a list of which another runs."""
    names = path.split(".")
    for end in range(1, len(names)):
        outer = ".".join(names[:end])
        if isinstance(block.get_submodule(outer), nn.ModuleList | nn.ModuleDict):
            return any(_within(other, outer) for other in ran)
    return False


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")
