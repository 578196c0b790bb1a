"""How tasks generate where it differs from their definitions: lm-eval's ``gen_kwargs``, a mapping or its text form."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pipeline.config.choices import nearest
from pipeline.config.types import Count, Part, Positive, Share, Within, misfits

KEY = "task.gen_kwargs"
# Other parameters of transformers' generate change what it returns, or are set by the harness.
_KINDS: Mapping[str, Any] = {
    "do_sample": bool,
    "temperature": Annotated[float, Within(0, 1e3, "a number from 0 to 1000")],
    "max_gen_toks": Positive,
    "until": str | list[str],
    "top_k": Count,
    "top_p": Share,
    "min_p": Part,
    "typical_p": Share,
    "repetition_penalty": Annotated[float, Within(1e-3, 1e3, "a number from 0.001 to 1000")],
    "no_repeat_ngram_size": Count,
    "num_beams": Positive,
}
# Other names of max_gen_toks, of which lm-eval would take the definition's rather than the one given.
_LENGTHS = ("max_new_tokens", "max_tokens", "max_completion_tokens", "max_length")
# These choose among drawn tokens.
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
_WORDS = {"true": True, "false": False, "none": None, "null": None}
# What stands between commas, apart from commas in brackets and quotes.
_PAIRS = re.compile(r"""((?:[^,\[\]"']|\[[^\]]*\]|"[^"]*"|'[^']*')+)""")


def generation(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return the parameters by name, empty if there are none.

    A text is ``temperature=0.7,do_sample=true``; its values are Python literals or bare words, as in lm-eval. A
    backslash and an n in ``until`` stand for a line break, which a command line can hardly hold. Raises ValueError for
    a text of another form.
    """
    found = _of_text(given) if isinstance(given, str) else dict(given or {})
    if "until" in found:
        found["until"] = _with_breaks(found["until"])
    return found


def _of_text(given: str) -> dict[str, Any]:
    found = {}
    for pair in _PAIRS.findall(given):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{KEY}={given!r}: {pair.strip()!r} is not name=value; write {KEY}={{temperature: 0.7}}")
        found[name.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _with_breaks(stops: Any) -> Any:
    if isinstance(stops, list):
        return [_with_breaks(stop) for stop in stops]
    return stops.replace("\\n", "\n") if isinstance(stops, str) else stops


def draws(parameters: Mapping[str, Any]) -> bool:
    """Return whether tokens are drawn, which makes the texts depend on the seed and the batches."""
    return bool(parameters.get("do_sample"))


def in_words(given: Mapping[str, Any] | str | None) -> str:
    """Return the parameters in the text form, sorted by name."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in sorted(generation(given).items()))


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def gen_kwargs_problems(given: Mapping[str, Any] | str | None) -> list[str]:
    """Return what is wrong with the parameters, in plain words."""
    try:
        parameters = generation(given)
    except ValueError as error:
        return [str(error)]
    found = []
    for name, value in parameters.items():
        if name in _LENGTHS:
            found.append(f"{KEY}: write max_gen_toks instead of {name}, the name that the tasks' definitions use")
        elif name not in _KINDS:
            found.append(f"{KEY}: {name} does not exist; {nearest(str(name), _KINDS)}")
        else:
            found += misfits(f"{KEY}.{name}", _KINDS[name], value)
    return found or _contradictions(parameters)


def _contradictions(parameters: Mapping[str, Any]) -> list[str]:
    """Check that sampling is asked for together with what it needs: definitions are greedy unless told otherwise."""
    drawn = [name for name in _OF_SAMPLING if name in parameters and (name != "temperature" or parameters[name] > 0)]
    if draws(parameters) and parameters.get("num_beams", 1) > 1:
        return [f"{KEY}: num_beams searches for the likeliest texts, do_sample draws them; leave one of them out"]
    if not draws(parameters):
        way = "take do_sample=false out" if "do_sample" in parameters else "add do_sample=true"
        way = f"{way}, or leave {'it' if len(drawn) == 1 else 'them'} out"
        return [f"{KEY}: {' and '.join(drawn)} would do nothing without do_sample=true; {way}"] if drawn else []
    if not parameters.get("temperature"):
        return [f"{KEY}: do_sample=true needs a temperature above 0; add temperature=1.0, or leave do_sample out"]
    return []
