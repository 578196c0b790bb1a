"""What lm-eval itself would write about an evaluation, kept beside our results so that its own files can be made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.loggers.utils import add_tokenizer_info
from lm_eval.utils import handle_non_serializable, sanitize_list

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def lines_of_log(found: Mapping[str, Any], model: HFLM) -> Iterator[str]:
    """Return JSON texts: lm-eval's results without samples, then its samples in the form of its files.

    ``found`` is what its ``evaluate`` returns. Each sample has its task in addition. Equal evaluations give equal
    texts: what depends on time and machine is added when the files are written.
    """
    results = {name: value for name, value in found.items() if name != "samples"}
    add_tokenizer_info(results, model)
    # A prompt comes once for each option: all samples as text at once might not fit into memory.
    return _lines(results | {"chat_template": model.tokenizer.chat_template}, found["samples"])


def _lines(results: Mapping[str, Any], found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    yield _json(results)
    for task, samples in found.items():
        for sample in samples:
            arguments = {
                f"gen_args_{number}": {f"arg_{place}": part for place, part in enumerate(request)}
                for number, request in enumerate(sample["arguments"])
            }
            written = {name: sanitize_list(sample[name]) for name in ("resps", "filtered_resps")}
            target = str(sample["target"])
            yield _json({"task": task, **sample, **written, "arguments": arguments, "target": target})


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return what lm-eval writes for a value that JSON does not know, without an order or address that varies."""
    if isinstance(value, set):
        return sorted(value, key=str)
    plain = handle_non_serializable(value)
    return _ADDRESS.sub("", plain) if isinstance(plain, str) else plain
