"""Recorded jobs, and their selection by the beginning of an id or by ``key=value``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.config.choices import choices_of, nearest, read_choice
from pipeline.config.schema import GROUPS, flatten
from pipeline.config.sparsity import parse
from pipeline.config.synonyms import SYNONYMS
from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord, load_records

SPARSITY = "sparsity"
# Fields of a record with a single plain value; the others are selected by dotted keys.
_FIELDS = (
    "job",
    "settings",
    "variant_id",
    "settings_id",
    "model_revision",
    "dtype",
    "model",
    "pruner",
    SPARSITY,
    "unit",
    "achieved",
    "parameters",
    "status",
    "error",
)
_MORE_FIELDS = ("seconds", "started", "finished")
_AGE = re.compile(r"(\d+(?:\.\d+)?)([mhdw])")
# A reference to another value, in the name of a choice.
_PART = re.compile(r"(\$\{[^}]*\})")
_SPANS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Refused(Exception):
    """Raised for a request that cannot be fulfilled; the message is one sentence that says what to do instead."""


def jobs_of(store: Store) -> list[JobRecord]:
    """Return all recorded jobs, oldest first. Raises Refused if there are none."""
    if not store.root.is_dir():
        raise Refused(f"there is no folder {store.root}; give the results folder with outputs=DIR")
    if not (records := load_records(store.jobs)):
        raise Refused(f"no jobs recorded in {store.root}; run `make demo`, or give another folder with outputs=DIR")
    return records


def pick(known: Iterable[str], words: Sequence[str]) -> list[str]:
    """Return the ids that begin with each of the words, in order. Raises Refused unless each word means one id."""
    ids, chosen = sorted(known), []
    for word in words:
        found = [job for job in ids if job.startswith(word)]
        if not found or not word:
            raise Refused(f"no job's id begins with {word!r}; `python -m pipeline.results list` lists all ids")
        if len(found) > 1 and word not in found:
            raise Refused(f"{word} is the beginning of {len(found)} job ids, {', '.join(found)}; give more characters")
        chosen.append(word if word in found else found[0])
    return list(dict.fromkeys(chosen))


def picked(records: Sequence[JobRecord], words: Sequence[str]) -> list[JobRecord]:
    """Return the records whose ids begin with the words."""
    by_id = {record.job: record for record in records}
    return [by_id[job] for job in pick(by_id, words)]


def task_of(record: JobRecord) -> str:
    return str(record.config.get("task.name", ""))


def facts_of(record: JobRecord) -> dict[str, Any]:
    """Return all that a job can be selected by: its flat configuration, its fields, ``origin.…`` and ``spent.…``."""
    groups = {group: record.config.get(f"{group}.name") for group in GROUPS}
    fields = {name: getattr(record, name) for name in (*_FIELDS, *_MORE_FIELDS)}
    fields["seed"] = record.seed
    return dict(record.config) | groups | fields | flatten({"origin": record.origin, "spent": record.spent})


# --- filters -----------------------------------------------------------------------------------------------------


def filtered(records: Sequence[JobRecord], filters: Sequence[str]) -> list[JobRecord]:
    """Return the jobs that match every ``key=value``; several values, separated by commas, are alternatives.

    Keys and values are those of the command line. Raises Refused for a key that no job has.
    """
    facts = {record.job: facts_of(record) for record in records}
    known = set().union(*facts.values())
    kept = list(records)
    for text in filters:
        key, equals, values = text.partition("=")
        if not equals:
            raise Refused(f"{text!r} is not a filter; write key=value, such as pruner=wanda")
        key = SYNONYMS.get(key, key)
        if key not in known:
            raise Refused(f"no job has a key {key}; {_near(key, known)}")
        fits = _any_of(key, _split(values))
        kept = [record for record in kept if fits(record, facts[record.job].get(key))]
    return kept


def _near(key: str, known: set[str]) -> str:
    """Return a hint with the nearest key and those beside it, rather than all of a hundred."""
    head = key.rpartition(".")[0]
    beside = {name for name in known if name.rpartition(".")[0] == head}
    text = nearest(key, beside or {name for name in known if "." not in name})
    meant = nearest(key, known)
    return text if not meant.startswith("did") or text.startswith("did") else f"{meant.partition('? ')[0]}? {text}"


def _split(values: str) -> list[str]:
    """Split alternatives at commas, except those inside the brackets of a list."""
    return [value.strip() for value in re.split(r",(?![^\[]*\])", values)]


def _any_of(key: str, words: Sequence[str]) -> Callable[[JobRecord, Any], bool]:
    wanted = {_sparsity(word) if key == SPARSITY else _word(word) for word in words}
    choices = [pattern for word in words if key in GROUPS and (pattern := _choice(key, word))]

    def fits(record: JobRecord, value: Any) -> bool:
        mine = _sparsity(str(value)) if key == SPARSITY else _word(value)
        return mine in wanted or any(_is_choice(record, key, str(value), choice) for choice in choices)

    return fits


def _word(value: Any) -> str:
    """Return a value as written on the command line, with numbers and spaces in one form."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_word(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value).strip()
    if text.startswith("[") and text.endswith("]"):
        return f"[{','.join(_word(item) for item in _split(text[1:-1]))}]"
    try:
        return repr(float(text))
    except ValueError:
        return {"None": "null", "True": "true", "False": "false"}.get(text, text.strip("\"'"))


def _sparsity(text: str) -> str:
    """Return one spelling for equal sparsities, such as 0.2 and 0.20, or 2:4 and 2of4."""
    try:
        sparsity = parse(text)
    except ValueError:
        return text
    return sparsity.given if sparsity.kind == "pattern" else _word(sparsity.given)


def _choice(group: str, word: str) -> Mapping[str, Any] | None:
    """Return class and name in a choice's YAML, if its jobs have other names (``model=hf`` is named after its path)."""
    if word not in choices_of(group):
        return None
    node = read_choice(group, word)
    return node if "${" in str(node.get("name")) else None


def _is_choice(record: JobRecord, group: str, name: str, choice: Mapping[str, Any]) -> bool:
    pattern = "".join(".+" if part.startswith("${") else re.escape(part) for part in _PART.split(choice["name"]))
    # Compared by the name of the class alone, since older records name the file that it was in at the time.
    made, asked = (
        str(target).rpartition(".")[2] for target in (record.config.get(f"{group}._target_"), choice["_target_"])
    )
    return made == asked and re.fullmatch(pattern, name) is not None


# --- time --------------------------------------------------------------------------------------------------------


def since(text: str) -> datetime:
    """Parse a moment: an ISO date or time (UTC if it has no zone), or how long ago, as ``3d`` or ``12h``.

    Raises Refused for anything else.
    """
    if span := _AGE.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_SPANS[span[2]]: float(span[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"--since {text}: give a date such as 2026-03-01, or a span such as 3d, 12h or 30m") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def ended_since(record: JobRecord, moment: datetime) -> bool:
    return bool(record.finished) and datetime.fromisoformat(record.finished) >= moment
