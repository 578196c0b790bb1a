"""The way from the last block's output to the logits, read from the data flow of one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from pipeline.model.block_form import Unfit, shown
from pipeline.model.dataflow import STREAM, Fact, Flow, key
from pipeline.model.structure import Structure

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def tail_of(model: PreTrainedModel, name: str, flow: Flow) -> tuple[Structure, float]:
    """Return the structure behind the blocks: modules up to the output projection, and what scales its logits.

    The number is what the last block's output is multiplied by before the first of these modules.
    """
    projection = model.get_output_embeddings()
    calls = {call.path: call for call in flow.calls}
    if projection is None:
        tail, passed, _ = _way(flow.result, flow, name)
        return Structure(name, (), tail=tuple(tail), encoder=True), passed
    path = next(path for path, module in model.named_modules() if module is projection)
    wrapper = wrapper_of(model, name)
    last = wrapper or path
    if last not in calls or not isinstance(projection, nn.Linear):
        raise Unfit(f"its logits do not come from a linear output projection ({type(projection).__name__} {path})")
    tail, passed, scale = _way(calls[last].given, flow, name)
    result, cap = flow.result.sum, None
    if result is None:
        # Squashed: the cap is the number of the configuration that gives the model's logits, which is proven later.
        cap = next(iter(caps_of(model.config)), None)
    elif set(result) != {last}:
        raise Unfit(f"its logits are {shown(result)}, not those of its output projection {path}")
    else:
        scale *= result[last]
    # Some classes do not say which part is the base: it is the outermost one that holds the blocks.
    base = model.base_model_prefix if model.base_model is not model else name.partition(".")[0]
    outer = tuple(each for each in tail if not each.startswith(f"{base}."))
    return Structure(name, (), tuple(tail), outer, scale, cap, wrapper, base=base), passed


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


def _way(fact: Fact, flow: Flow, name: str, behind: Sequence[str] = ()) -> tuple[list[str], float, float]:
    """Return the modules that lead from the last block's output to a tensor, its factor before them, and after.

    ``behind`` are the modules from there on, and ``name`` is the path of the block list. Raises Unfit for another way.
    """
    if fact.sum is None or len(fact.sum) != 1:
        readers = flow.readers.get(key({STREAM: 1.0}), [])
        innermost = [path for path in readers if not any(other.startswith(f"{path}.") for other in readers)]
        read = f", which {' and '.join(dict.fromkeys(innermost))} reads" if innermost else ""
        made = [shown(fact.sum)] if fact.sum else []
        way = ", ".join([*behind, *made]) or "something else than modules return"
        raise Unfit(f"its output is computed from {way}, not from the last state of {name}{read}")
    ((source, factor),) = fact.sum.items()
    if source == STREAM:
        return [], 1.0, factor
    given = next(call.given for call in reversed(flow.calls) if call.path == source)
    earlier, passed, scale = _way(given, flow, name, [*behind, source])
    if earlier and scale != 1:
        raise Unfit(f"it scales its last state by {scale:g} before {source}")
    return [*earlier, source], passed if earlier else scale, factor
