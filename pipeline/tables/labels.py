"""Labels of jobs for people: the options that distinguish a job, and how it was evaluated and captured.

Rows are joined by ids, never by labels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import PurePath
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from pipeline.config.choices import choices_of, read_choice
from pipeline.config.search_path import CONF
from pipeline.evaluate.gen_kwargs import in_words

CALIBRATION = "calibration"
_TEXT = f"{CALIBRATION}.name"
# Configuration keys of a component that do not count as options.
_NO_OPTIONS = ("_target_", "name", "batch_size", "seed", "draw")
# Options whose value is written before the name, as in "3 bits".
_COUNTED = ("bits", "draws")
# A longer list is described by its length.
_MOST_NAMED = 2
# Characters of an instruction that a line shows.
_MOST_SHOWN = 30


class Facts(NamedTuple):
    """Facts that distinguish a variant from others of its pruner.

    ``options`` holds its options by name, those of the calibration as ``calibration.name`` and so on; ``changed`` names
    those that differ from the defaults.
    """

    variant_id: str
    pruner: str
    sparsity: str
    options: Mapping[str, Any]
    changed: Sequence[str]


def options_of(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Return the options of a component from a flat configuration, by name."""
    prefix = f"{group}."
    there = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    return {name: value for name, value in there.items() if name.partition(".")[0] not in _NO_OPTIONS}


def changed_options(config: Mapping[str, Any]) -> list[str]:
    """Return the names, as in ``Facts``, of the options of pruner and calibration that differ from their files.

    A calibration other than the default one counts as a change of ``calibration.name``.
    """
    found = []
    for group in ("pruner", CALIBRATION):
        name = str(config.get(f"{group}.name", ""))
        defaults = _defaults(group, name)
        if group == CALIBRATION and name and name != _default_calibration():
            found.append(_TEXT)
        prefix = "" if group == "pruner" else f"{group}."
        for option, value in options_of(config, group).items():
            if defaults is None or (option in defaults and defaults[option] != value):
                found.append(f"{prefix}{option}")
    return found


def option_texts(variants: Iterable[Facts]) -> dict[str, str]:
    """Return a text for each variant id that distinguishes it, such as "3 bits" or "wiki 32×256"; often empty.

    It names the options that were changed, and those in which variants of one pruner differ. Variants of one pruner and
    sparsity never share a text: where options do not distinguish them, the beginning of the id does.
    """
    everyone = list({facts.variant_id: facts for facts in variants}.values())
    texts: dict[str, str] = {}
    for pruner in dict.fromkeys(facts.pruner for facts in everyone):
        own = [facts for facts in everyone if facts.pruner == pruner]
        differing = _differing(own)
        for facts in own:
            named = [option for option in facts.options if option in differing or option in facts.changed]
            texts[facts.variant_id] = _text(facts.options, named)
    for facts in everyone:
        same = [o for o in everyone if (o.pruner, o.sparsity) == (facts.pruner, facts.sparsity)]
        if sum(texts[other.variant_id] == texts[facts.variant_id] for other in same) > 1:
            texts[facts.variant_id] += f"{' ' if texts[facts.variant_id] else ''}#{facts.variant_id[:6]}"
    return texts


def label(pruner: str, sparsity: str, options: str, takes_sparsity: bool) -> str:
    """Return the label of a variant: ``rtn 3 bits``, ``wanda 0.5``, ``shortgpt 4, wiki``."""
    if not takes_sparsity:
        return f"{pruner} {options}" if options else pruner
    return f"{pruner} {sparsity}, {options}" if options else f"{pruner} {sparsity}"


def model_names(models: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return a name for each model id, from (id, name) pairs; models that share a name are told apart by their ids."""
    names = dict(models)
    shared = Counter(names.values())
    return {own: f"{name} #{own[:4]}" if shared[name] > 1 else name for own, name in names.items()}


def conditions_line(
    config: Mapping[str, Any], probes: int, dtype: str, settings_id: str, special_tokens: str = ""
) -> str:
    """Return a line for people on how a job was evaluated and captured; the id distinguishes equal lines."""
    limit, shots, names = (config.get(f"task.{key}") for key in ("limit", "shots", "names"))
    task = [f"{config.get('task.name', '?')}{_listed(names)}", _amount(limit)]
    task += [f"{shots} shots"] if isinstance(shots, int) else []
    task += ["chat template"] if config.get("task.chat_template") else []
    task += _of_harness(config)
    decoding = str(config.get("capture.decoding"))
    if decoding == "sample":
        decoding = f"drawn at {config.get('capture.temperature')}"
    states = [f"{probes} prompts", f"{config.get('capture.steps')} steps", decoding]
    temperatures = config.get("measure.temperatures") or [1.0]
    states += [] if list(temperatures) == [1.0] else [f"T {', '.join(f'{value:g}' for value in temperatures)}"]
    states += [f"with {', '.join(sorted(extra))}"] if (extra := config.get("measure.extra")) else []
    text = [special_tokens] if special_tokens else []
    return " · ".join([", ".join(task), ", ".join(states), *text, dtype, f"#{settings_id[:4]}"])


def _amount(limit: Any) -> str:
    if limit is None:
        return "all items"
    return f"{100 * limit:g} % of the items" if limit < 1 else f"{limit} items"


def _of_harness(config: Mapping[str, Any]) -> list[str]:
    """Describe the options of lm-eval that are not at their defaults."""
    prefix = "task.gen_kwargs."
    pairs = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    instruction, turns = (config.get(f"task.{key}") for key in ("system_instruction", "fewshot_as_multiturn"))
    found = [text] if (text := in_words(pairs or config.get("task.gen_kwargs"))) else []
    found += [f"{samples} answers an item"] if (samples := config.get("task.samples") or 1) > 1 else []
    found += [f"instructed {instruction[:_MOST_SHOWN]!r}"] if instruction else []
    found += ["examples in one turn"] if turns is False and config.get("task.chat_template") else []
    return found + (["not scored"] if config.get("task.predict_only") else [])


def _differing(variants: Sequence[Facts]) -> set[str]:
    """Return the options in which these variants differ, or that only some of them have.

    What comes with another calibration text is said by its name; its options count where variants read the same text.
    """
    texts = {str(facts.options.get(_TEXT)) for facts in variants}
    by_text = [[facts for facts in variants if str(facts.options.get(_TEXT)) == text] for text in texts]
    names = dict.fromkeys(name for facts in variants for name in facts.options)
    return {
        name
        for name in names
        if any(_differs(name, group) for group in (by_text if name.startswith(f"{CALIBRATION}.") else [variants]))
    } | ({_TEXT} if len(texts) > 1 else set())


def _differs(name: str, variants: Sequence[Facts]) -> bool:
    """Return whether an option has several values among these variants."""
    return len({json.dumps(facts.options.get(name), sort_keys=True, default=str) for facts in variants}) > 1


def _text(options: Mapping[str, Any], named: Sequence[str]) -> str:
    """Return the options in words, with the size of the calibration set as sequences × length."""
    parts = []
    size = [f"{CALIBRATION}.{name}" for name in ("sequences", "length")]
    for name in named:
        value = options[name]
        if name == _TEXT:
            parts.append(str(value))
        elif name == f"{CALIBRATION}.path":
            parts += [] if value is None else [PurePath(str(value)).name]
        elif name in size:
            text = "×".join(str(options.get(each)) for each in size)
            parts += [] if text in parts else [text]
        else:
            parts.append(_phrase(name.removeprefix(f"{CALIBRATION}."), value))
    return " ".join(parts) if all(name.startswith(CALIBRATION) for name in named) else ", ".join(parts)


def _phrase(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    if isinstance(value, list):
        return f"{len(value)} {words}" if len(value) > _MOST_NAMED else f"{words} {', '.join(map(str, value))}"
    return f"{value} {words}" if name in _COUNTED else f"{words} {value}"


def _listed(names: Any) -> str:
    if not isinstance(names, list) or not names:
        return ""
    return f" {', '.join(map(str, names[:3]))}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _defaults(group: str, name: str) -> Mapping[str, Any] | None:
    """Return the values in the file of a choice, without references and unset ones; None if there is no such file."""
    name = PurePath(name).name
    if name not in choices_of(group):
        return None
    return {
        key: value
        for key, value in read_choice(group, name).items()
        if not ((isinstance(value, str) and "${" in value) or value == "???")
    }


@cache
def _default_calibration() -> str:
    chosen = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return next(str(part[CALIBRATION]) for part in chosen if isinstance(part, Mapping) and CALIBRATION in part)
