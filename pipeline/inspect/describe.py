"""What was found on a model: blocks, sublayers, matrices, head, cache, what each pruner can do, and the proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.by_name import defaults
from pipeline.config.choices import choices_of
from pipeline.config.signature import signature
from pipeline.model.decoder import Decoder
from pipeline.model.full_proof import full_proof
from pipeline.model.model_types import is_encoder, unsuited
from pipeline.model.structure import BlockStructure, Part
from pipeline.model.visits import listed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Where a norm may be.
_PLACES = ("before", "after", "on the sum")


@dataclass(frozen=True)
class Description:
    """A model's structure as plain values.

    ``blocks`` are runs of equal blocks, ``pruners`` the reason why each does not work on the model (empty: it does),
    and ``proof`` the largest relative error of each kind of equation. ``unvisited`` names, by block, the experts
    that no token of the proof visits.
    """

    type: str
    parameters: int
    block_list: str
    blocks: list[dict[str, Any]]
    head: dict[str, Any]
    cache: str
    pruners: dict[str, str]
    proof: dict[str, float]
    unvisited: dict[int, list[str]]

    def plain(self) -> dict[str, Any]:
        """Return everything as values that JSON can hold."""
        return asdict(self)


def describe(model: PreTrainedModel) -> Description:
    """Describe a model, and prove what is said of it on one short pass. Raises ValueError for an unknown form."""
    decoder, proof = Decoder(model), full_proof(model)
    return Description(
        type=model.config.model_type,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        block_list=_lists(decoder),
        blocks=list(_runs(decoder)),
        head=_head(decoder),
        cache=_cache(decoder),
        pruners={name: _unsuited(name, model) or "" for name in choices_of("pruner")},
        proof=dict(proof.errors),
        unvisited={layer: list(parts) for layer, parts in proof.unvisited.items()},
    )


def _lists(decoder: Decoder) -> str:
    """Return where the blocks are, and which of them text does not pass."""
    idle = ", ".join(str(place) for place in decoder.structure.idle)
    return " + ".join(decoder.structure.lists) + (f" without {idle}, which text does not pass" if idle else "")


def _runs(decoder: Decoder) -> Iterator[dict[str, Any]]:
    """Yield neighbouring blocks of equal structure together."""
    blocks = decoder.structure.blocks
    start = 0
    for end in range(1, len(blocks) + 1):
        if end == len(blocks) or blocks[end] != blocks[start]:
            yield {"first": start, "last": end - 1, **_block(decoder, start, blocks[start])}
            start = end


def _block(decoder: Decoder, layer: int, block: BlockStructure) -> dict[str, Any]:
    linears = decoder.linears(layer)
    return {
        "form": _form(block),
        "sublayers": [_part(part) for part in block.parts],
        "stream times": block.factor * block.passed,
        "matrices": len(linears),
        "shapes": sorted({f"{w.weight.shape[0]}×{w.weight.shape[1]}" for w in linears}),
        "idle": list(block.idle),
    }


def _form(block: BlockStructure) -> str:
    if block.parallel:
        return "parallel"
    if block.norms:
        return "norm on the sum"
    return "one after the other" if block.in_turn else "by turns"


def _part(part: Part) -> dict[str, Any]:
    norms = [name for name in (part.norm, part.post_norm) if name]
    return {
        "kind": part.name,
        "modules": [name for name in part.modules if name not in norms],
        "norm before": part.norm,
        "norm after": part.post_norm,
        "norm on the sum": part.closing,
        "stream times": part.carry,
        "times": [write.scale for write in part.writes],
        "zero for export": list(part.zero),
    }


def _head(decoder: Decoder) -> dict[str, Any]:
    structure = decoder.structure
    if structure.encoder:
        return {"projection": "none (an encoder)"}
    rows, width = decoder.head.weight.shape
    tied = decoder.head.weight is decoder.model.get_input_embeddings().weight
    return {
        "projection": f"{rows}×{width}" + (" with bias" if decoder.head.bias is not None else ""),
        "tied to the embedding": tied,
        "after": [*structure.tail, *([f"inside {structure.head_wrapper}"] if structure.head_wrapper else [])],
        "logits times": structure.head_scale,
        "cap": structure.head_cap,
    }


def _cache(decoder: Decoder) -> str:
    slots = sum(bool(block.caches) for block in decoder.structure.blocks)
    if decoder.structure.encoder or not decoder.uses_cache:
        return "none"
    return f"{slots} of {len(decoder.blocks)} blocks have a slot"


def _unsuited(pruner: str, model: PreTrainedModel) -> str | None:
    """Return why a pruner does not work on a model; None if it does."""
    said = signature(defaults("pruner", pruner)["_target_"]).constants
    only = said.get("architectures") or ()
    decoder_only = bool(said.get("decoder_only") or said.get("compares"))
    return unsuited(model.config.model_type, is_encoder(model.config), decoder_only, only)


def lines(found: Description) -> Sequence[str]:
    """Return the description as lines for a terminal of 80 columns."""
    out = [f"{found.type}, {found.parameters:,} parameters, blocks at {found.block_list}"]
    for run in found.blocks:
        number = f"block {run['first']}" if run["first"] == run["last"] else f"blocks {run['first']} to {run['last']}"
        factor = f", stream × {run['stream times']:g}" if run["stream times"] != 1 else ""
        out.append(f"{number}: {run['form']}{factor}, {run['matrices']} matrices ({', '.join(run['shapes'])})")
        for part in run["sublayers"]:
            times = "".join(f" × {scale:g}" for scale in part["times"] if scale != 1)
            times += f" + stream × {part['stream times']:g}" if part["stream times"] != 1 else ""
            out.append(f"  {part['kind']:9}  {' + '.join(part['modules'])}{times}")
            norms = [f"{part[f'norm {place}']} {place}" for place in _PLACES if part[f"norm {place}"]]
            if norms:
                out.append(f"             norms: {', '.join(norms)}")
            if not part["zero for export"]:
                out.append("             no weights make it zero: it cannot be dropped in an exported checkpoint")
        if run["idle"]:
            out.append(f"  text does not pass {', '.join(run['idle'])}: not pruned, not counted")
    out.append("head: " + ", ".join(_said(key, value) for key, value in found.head.items() if _matters(value)))
    out.append(f"cache: {found.cache}")
    works = [name for name, why in found.pruners.items() if not why]
    out.append(f"pruners: {len(works)} of {len(found.pruners)} work")
    for why in dict.fromkeys(filter(None, found.pruners.values())):
        out.append(f"  not {', '.join(name for name, said in found.pruners.items() if said == why)}: {why}")
    out.append(
        "proof, largest relative error: " + ", ".join(f"{name} {error:.0e}" for name, error in found.proof.items())
    )
    out += [f"  no token visits {listed(parts)} of block {layer}" for layer, parts in found.unvisited.items()]
    return out


def _matters(value: object) -> bool:
    return isinstance(value, bool) or value not in (None, [], 1.0)


def _said(key: str, value: object) -> str:
    if isinstance(value, bool):
        return key if value else f"not {key}"
    return f"{key} {', '.join(value) if isinstance(value, list) else value}"
