"""``samples``: the prompt of every item, the model's answer, the right one and the score."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipeline.config.choices import nearest
from pipeline.evaluate.results import read_samples
from pipeline.results.jobs import Refused
from pipeline.results.listing import CSV, JSON
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.records import JobRecord

EVALUATION, DENSE_EVALUATION = "evaluation", "dense evaluation"
# Items of each task that a terminal shows unless told otherwise, and characters of a text.
_FEW, _LONGEST = 3, 800
_COLUMNS = ["job", "task", "kind", "item", "prompt", "answer", "gold", "score"]
_DENSE_COLUMNS = ["dense_answer", "dense_score"]


@dataclass(frozen=True)
class Wanted:
    """Which samples to show: of ``tasks`` (all if empty), at most ``limit`` of each, those scored below 1 if ``wrong``.

    ``dense`` sets the dense model's answer beside the job's, ``full`` shows texts of any length.
    """

    tasks: Sequence[str] = ()
    limit: int | None = None
    wrong: bool = False
    dense: bool = False
    full: bool = False


def show_samples(record: JobRecord, store: Store, wanted: Wanted, form: str) -> None:
    """Print the samples of a job for people, or as JSON or CSV. Raises Refused for what it does not have."""
    found = list(_chosen(record, store, wanted))
    if form == JSON:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    elif form == CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(_DENSE_COLUMNS if wanted.dense else ())])
        writer.writerows(_cells(record, sample, wanted.dense) for sample in found)
    else:
        _print(found, wanted)


def samples_of(record: JobRecord, store: Store, role: str) -> Iterator[dict[str, Any]]:
    """Yield the samples of one of a job's evaluations. Raises Refused if there is none, or if it is damaged."""
    return read_samples(evaluation_of(record, store, role).path)


def evaluation_of(record: JobRecord, store: Store, role: str) -> Artifact:
    """Return the artifact of a job's own evaluation or of the dense model's. Raises Refused as `samples_of` does."""
    if role not in record.artifacts:
        if role == DENSE_EVALUATION and EVALUATION in record.artifacts:
            raise Refused(f"{record.job} has no dense model beside it, since it is the dense model's own job")
        raise Refused(f"{record.job} has evaluated nothing; run it with the stage evaluate")
    path = store.root / record.artifacts[role]
    if not path.is_dir():
        raise Refused(f"{record.artifacts[role]} is missing; the command of the job makes it again")
    if problem := store.problem(path):
        raise Refused(f"{record.artifacts[role]}: {problem}; python -m pipeline.results verify --repair sets it aside")
    return Artifact(path, path.parent.name, path.name)


def _chosen(record: JobRecord, store: Store, wanted: Wanted) -> Iterator[dict[str, Any]]:
    everything = list(samples_of(record, store, EVALUATION))
    known = list(dict.fromkeys(sample["task"] for sample in everything))
    if unknown := [task for task in wanted.tasks if task not in known]:
        raise Refused(f"{record.job} has no task {unknown[0]}; {nearest(unknown[0], known)}")
    if wanted.wrong and all(sample["score"] is None for sample in everything):
        raise Refused(f"{record.job} has kept its answers without scoring them, so none is wrong; leave --wrong out")
    beside = {_who(sample): sample for sample in samples_of(record, store, DENSE_EVALUATION)} if wanted.dense else {}
    for (task, _), samples in groupby(everything, key=lambda sample: (sample["task"], sample["kind"])):
        if wanted.tasks and task not in wanted.tasks:
            continue
        for number, sample in enumerate(own for own in samples if not wanted.wrong or _is_wrong(own)):
            if wanted.limit is not None and number >= wanted.limit:
                break
            yield sample | ({"dense": beside.get(_who(sample))} if wanted.dense else {})


def _who(sample: Mapping[str, Any]) -> tuple[str, str, int]:
    return sample["task"], sample["kind"], sample["item"]


def _is_wrong(sample: Mapping[str, Any]) -> bool:
    return sample["score"] is not None and sample["kind"] != "perplexity" and sample["score"] < 1


def _cells(record: JobRecord, sample: Mapping[str, Any], dense: bool) -> list[Any]:
    cells = [record.job, *(sample[name] for name in ("task", "kind", "item", "prompt"))]
    cells += [_answer(sample), _gold(sample), sample["score"]]
    if dense:
        other = sample["dense"]
        cells += [None, None] if other is None else [_answer(other), other["score"]]
    return cells


def _answer(sample: Mapping[str, Any]) -> str:
    """Return what is scored: the answer that a filter found in the text, if one did, else the text."""
    return _text(sample.get("answer", sample["completion"]))


def _gold(sample: Mapping[str, Any]) -> str:
    """Return the right answer; of a multiple-choice item its text rather than its number."""
    gold, options = sample["gold"], sample.get("options")
    numbers = gold if isinstance(gold, list) else [gold]
    if options and all(isinstance(one, int) and 0 <= one < len(options) for one in numbers):
        return " | ".join(options[one] for one in numbers)
    return _text(gold)


def _text(value: Any) -> str:
    return " | ".join(map(_text, value)) if isinstance(value, list) else str(value)


# --- on a terminal ---------------------------------------------------------------------------------------------------


def _print(samples: Sequence[Mapping[str, Any]], wanted: Wanted) -> None:
    few = _FEW if wanted.limit is None else None
    for (task, kind), own in groupby(samples, key=lambda sample: (sample["task"], sample["kind"])):
        listed = list(own)
        for sample in listed[:few]:
            _print_one(sample, wanted)
        if left := len(listed) - len(listed[:few]):
            print(f"{task}, {kind}: {left} more; --limit {len(listed)} shows them\n")
    if not samples:
        print("no such sample")


def _print_one(sample: Mapping[str, Any], wanted: Wanted) -> None:
    print(f"{sample['task']}, {sample['kind'].replace('_', ' ')}, item {sample['item']}{_scored(sample)}")
    _lines("prompt", str(sample["prompt"]), wanted.full, from_end=True)
    if options := sample.get("options"):
        for option, value in zip(options, sample["log_likelihoods"], strict=False):
            _lines("option", f"{option}  ({value:.2f})", wanted.full)
    _lines("answer", str(sample["completion"]), wanted.full)
    if "answer" in sample:
        _lines("read as", _answer(sample), wanted.full)
    _lines("gold", _gold(sample), wanted.full)
    if wanted.dense:
        other = sample["dense"]
        text = "not asked" if other is None else f"{other['completion']}{_scored(other)}"
        _lines("dense", text, wanted.full)
    print()


def _scored(sample: Mapping[str, Any]) -> str:
    return "" if sample["score"] is None else f", score {sample['score']:.3g}"


def _lines(name: str, text: str, full: bool, from_end: bool = False) -> None:
    """Print a text beside its name, shortened at the end or, like a prompt that ends in the question, at the start."""
    if not full and len(text) > _LONGEST:
        left = len(text) - _LONGEST
        text = (
            f"… {left} characters before: --full\n{text[-_LONGEST:]}"
            if from_end
            else f"{text[:_LONGEST]} … {left} more"
        )
    for number, line in enumerate(text.split("\n")):
        print(f"  {name if number == 0 else '':8}| {_printable(line)}")


def _printable(line: str) -> str:
    """Return a line without characters that would move the cursor or change the terminal: models write anything."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "�" for letter in line)
