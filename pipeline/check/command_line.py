"""Check of a whole command line: all problems at once, before anything heavy is imported."""

from __future__ import annotations

import copy
import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.check.composition import composition_problem
from pipeline.check.impossible_values import value_problems
from pipeline.check.job import check_components, check_job
from pipeline.check.model import check_sparsity, check_text
from pipeline.check.names import name_problems
from pipeline.check.paths import clashes, impossible
from pipeline.check.words import MOST_JOBS, Words, first_line, read_words, shortened
from pipeline.common.errors import plain as plain_cause
from pipeline.common.secrets import redact, secret_in
from pipeline.config import schema
from pipeline.config.choices import choices_of, nearest, read_choice
from pipeline.config.schema import flatten, typed
from pipeline.config.search_path import CONF, searched

# The key of a node to suggest when a value is given for the node itself.
_FIRST = {
    "export": "path",
    "figures": "select",
    "capture": "steps",
    "measure": "temperatures",
    "wandb": "mode",
    "perplexity": "tokens",
}
# What to give for a mandatory key.
_WANTED = {
    "model.path": "hub id or directory",
    "calibration.path": "file or directory",
    "task.names": "list of lm-eval task names",
    "task.sets": "list of directories",
}
# What to do where an experiment lists several sparsities for a pruner and the command runs one job of each.
_SEVERAL = "add -m to run all of them with hydra/sweeper=grid, or give sparsity=VALUE"


def problems(arguments: Sequence[str], multirun: bool) -> list[str]:
    """Return a sentence with the way out for each problem of a command line. Bad input raises nothing."""
    words = read_words(arguments, multirun)
    found = [*words.problems, *_one_run(words)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for choices in _product(words.groups) if words.jobs <= MOST_JOBS else ():
            try:
                chosen = [f"{group}={choice}" for group, choice in choices.items()]
                cfg = compose("config", overrides=[*chosen, *searched()])
                raw = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
                names = {group: (raw[group].get("name"), choices.get(group)) for group in schema.GROUPS}
            except Exception as error:  # whatever Hydra raises for a YAML file that it cannot use
                found.append(composition_problem(error, choices))
                continue
            for setting in _product(words.values) if not words.sampled else _one_by_one(words.values):
                found += _check_one(copy.deepcopy(raw), setting, names, words)
    GlobalHydra.instance().clear()
    # Some sentences quote values, which may be secrets.
    return list(dict.fromkeys(map(redact, found)))


def _one_run(words: Words) -> list[str]:
    """Return a sentence if all jobs of a sweep would write into one run."""
    given = words.values.get("wandb.id", [None])
    if not words.multirun or words.jobs < 2 or len(given) > 1 or given[0] is None or "${" in str(given[0]):
        return []
    return [f"wandb.id={given[0]} would be the run of all {words.jobs} jobs; without it, each job has an id of its own"]


def _product(options: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*options.values()):
        yield dict(zip(options, combination, strict=True))


def _one_by_one(options: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield settings in which each value appears, all others being the first of their key."""
    first = {key: values[0] for key, values in options.items()}
    yield first
    for key, values in options.items():
        for value in values[1:]:
            yield {**first, key: value}


def _check_one(
    raw: dict[str, Any], setting: Mapping[str, Any], names: Mapping[str, Sequence[str | None]], words: Words
) -> list[str]:
    """Return the problems of one composed configuration after setting plain values.

    ``names`` holds, for each group, the name as composed and the choice on the command line.
    """
    found = [problem for key, value in setting.items() if (problem := _set(raw, key, value, words))]
    missing = sorted(key for key, value in flatten(raw).items() if value == "???")
    for key in missing:
        group, _, name = key.rpartition(".")
        (raw[group] if group else raw)[name] = None
    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(raw), resolve=True))
    except (OmegaConfBaseException, RecursionError, OverflowError, ValueError) as error:
        return [*found, _unresolved(first_line(error), raw)]
    several = plain["sparsity"]
    if isinstance(several, list) and "sparsity" not in setting:
        # An experiment's own list for this pruner, each of which is a job.
        if not words.multirun or words.sampled:
            who = f"pruner={raw['pruner']['name']}"
            return [*found, f"the experiment has a list of {len(several)} for sparsity with {who}: {_SEVERAL}"]
        each = [_check_plain({**plain, "sparsity": one}, missing, names, found) for one in several]
        return [problem for own in each for problem in own]
    return _check_plain(plain, missing, names, found)


def _check_plain(
    plain: dict[str, Any], missing: Sequence[str], names: Mapping[str, Sequence[str | None]], before: Sequence[str]
) -> list[str]:
    """Return the problems of one configuration whose references are resolved, after those found ``before``.

    ``missing`` keys are None in it.
    """
    found = [*before, *(problem for key, value in flatten(plain).items() if (problem := secret_in(key, value)))]
    found += [f"{key} is required: give {key}=<{_WANTED.get(key, 'value')}>" for key in missing]
    odd = value_problems(plain)
    if not odd:
        plain, odd = typed(plain)
        odd = [problem for problem in odd if problem.partition("=")[0] not in missing]
    if odd or any(key.partition(".")[0] not in schema.GROUPS for key in missing):
        # The other checks take types for granted.
        return found + odd + check_components(plain, missing) + check_sparsity(plain)
    found += name_problems(plain, names)
    if unreadable := impossible(plain):
        # The other checks access the paths.
        return found + unreadable
    found += clashes(plain)
    found += _checked(plain, missing, any(problem.startswith("sparsity") for problem in found))
    return found or check_text(plain, chosen=names["calibration"][1] is not None)


def _set(raw: dict[str, Any], key: str, value: Any, words: Words) -> str | None:
    """Set a value in place, as Hydra would, or return why it cannot be set. A mapping adds to an existing one."""
    *path, name = key.split(".")
    node: Any = raw
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    # Pairs inside a component, such as task.metrics, are the user's choice.
    is_open = len(path) > 1 and path[0] in schema.GROUPS
    if is_open and node is None and isinstance(raw[path[0]], dict) and raw[path[0]].get(path[1], "") is None:
        node = raw[path[0]][path[1]] = {}
    if not isinstance(node, dict) or name.startswith("_") or (name not in node and not is_open) or name == "hydra":
        way = _elsewhere(path, name) or nearest(key, _keys_near(raw, key))
        return f"{shortened(key)} is not a key{_owner(raw, path)}; {way}"
    if name not in node and key not in words.growing:
        return f"{shortened(key)} does not exist yet; write +{shortened(key)}=VALUE to add it"
    there: Any = node.get(name)
    if key in schema.NODES and not isinstance(value, Mapping):
        own = ", ".join(sorted(there))
        given = f"[{','.join(map(str, value))}]" if isinstance(value, list) else value
        return f"{key} is a group of keys ({own}): write {key}.{_FIRST[key]}={shortened(given)}"
    if name in node and key in words.added and not isinstance(value, Mapping):
        return f"+{key}: {key} already exists; write it without the +"
    if isinstance(there, dict) and isinstance(value, Mapping):
        if new := [str(one) for one in value if one not in there and key not in words.growing]:
            way = f"to add new keys, write +{key}={shortened(value)}"
            return f"{key}={shortened(value)} contains {', '.join(new)}, which {key} does not have; {way}"
        value = {**there, **value}
    node[name] = value
    return None


def _keys_near(raw: Mapping[str, Any], key: str) -> set[str]:
    """Return the known keys beside an unknown one; if none, or at the root, the root's keys and any spelled alike."""
    head = f"{key.rpartition('.')[0]}."
    known = {name for name in flatten(raw) if not name.startswith("hydra.") and name.rpartition(".")[2][0] != "_"}
    known |= {name.partition(".")[0] for name in known}
    if inside := {name for name in known if name.startswith(head) and "." not in name.removeprefix(head)}:
        return inside
    return {name for name in known if "." not in name} | set(difflib.get_close_matches(key, known))


def _elsewhere(path: Sequence[str], name: str) -> str:
    """Return which other choices of a group have a key, such as ``task.names``; empty if none."""
    if len(path) != 1 or path[0] not in schema.GROUPS:
        return ""
    (group,), having = path, []
    for choice in choices_of(group):
        # A file of the user's own that cannot be read is no help here; who chooses it is told.
        with suppress(OSError, ValueError, AttributeError, yaml.YAMLError):
            having += [choice] if name in read_choice(group, choice) else []
    return f"give {group}={' or '.join(having)}, which {'has' if len(having) == 1 else 'have'} it" if having else ""


def _owner(raw: Mapping[str, Any], path: Sequence[str]) -> str:
    group = path[0] if path else ""
    if group not in schema.GROUPS:
        return ""
    name = str(raw[group].get("name", group))
    return f" of {group}={name}" if "${" not in name else f" of this {group}"


def _checked(plain: dict[str, Any], missing: Sequence[str], bad_sparsity: bool) -> list[str]:
    found: list[str] = []
    try:
        found += check_components(plain, missing)
        return found + check_job(plain, bool(missing), bad_sparsity)
    except OSError as error:
        where = f"{error.filename} " if error.filename else "a file "
        return [*found, f"{where}cannot be accessed ({error.strerror or error}); give another path"]
    except Exception as error:
        # No command line may end in a traceback. Values of a wrong type, if any, are already in ``found``.
        return found or [
            f"these values cannot be checked ({plain_cause(error)}); remove them one by one to find the one that fails"
        ]


def _unresolved(message: str, raw: Mapping[str, Any]) -> str:
    """Return why a configuration cannot be resolved. Experiments give sparsities for their own pruners only."""
    if "'sparsity_of." in message:
        return f"the experiment has no sparsity for pruner={raw['pruner']['name']}; give one, such as sparsity=0.5"
    return f"the configuration cannot be resolved: {message}"
