"""Show what a model is made of, and what can be done with it: ``python -m pipeline.inspect model=smollm2``.

``--all`` tries every type of causal model that the installed transformers knows, on tiny random models.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from pipeline.common.arguments import Arguments
from pipeline.common.errors import plain
from pipeline.common.quiet import quiet_libraries
from pipeline.config.choices import nearest
from pipeline.model.model_types import causal_types

if TYPE_CHECKING:
    from pipeline.inspect.trials import Outcome

# Seconds after which the trial of a type is given up.
_PATIENCE = 600


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the description of a model, or the table of types. Returns 0, 1 if a type failed, 2 for a mistake."""
    parser = Arguments(
        prog="python -m pipeline.inspect",
        description="Show blocks, sublayers, norms, factors, matrices and head of a model, and prove them on it.",
        epilog="model=hf model.path=DIR describes a checkpoint, model=random model.architecture=TYPE a tiny model.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="model=NAME | TYPE", help="the model as for pipeline.main; types with --all"
    )
    parser.add_argument("--all", action="store_true", help="try every type of transformers on a tiny random model")
    parser.add_argument("--json", action="store_true", help="print JSON: with --all, a list of {type, status, reason}")
    parser.add_argument("--page", type=Path, metavar="FILE", help="with --all, write the table into this page")
    options = parser.parse_args(arguments)
    quiet_libraries()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        return _types(options) if options.all else _model(options)
    except (ValueError, OSError) as error:
        print(f"cannot inspect: {plain(error)}", file=sys.stderr)
        return 2
    finally:
        logging.disable(before)


def _model(options: Any) -> int:
    words = dict(_pair(word) for word in options.words)
    name = words.pop("model", "smollm2")
    import torch

    from pipeline.config.by_name import component
    from pipeline.inspect.describe import describe, lines
    from pipeline.store.artifacts import Store

    source = component("model", str(name), {key.removeprefix("model."): value for key, value in words.items()})
    found = describe(source.load(torch.float32, Store(options.outputs)))
    print(json.dumps(found.plain(), indent=1) if options.json else "\n".join(lines(found)))
    return 0


def _pair(word: str) -> tuple[str, Any]:
    key, _, value = word.partition("=")
    if not (key == "model" or key.startswith("model.")):
        raise ValueError(f"{word}: give the model as model=NAME model.KEY=VALUE, or types with --all")
    return key, yaml.safe_load(value)


def _types(options: Any) -> int:
    known = causal_types()
    if unknown := [word for word in options.words if word not in known]:
        raise ValueError(f"type {unknown[0]} is not known to the installed transformers; {nearest(unknown[0], known)}")
    found: list[Outcome] = []
    for outcome in _tried(options.words or known):
        found.append(outcome)
        print(
            f"{len(found):4} {outcome.type:26} {outcome.status:18} {outcome.reason[:100]}", file=sys.stderr, flush=True
        )
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in found], indent=1))
    if options.page is not None:
        text = [line for line in options.page.read_text(encoding="utf-8").splitlines() if not line.startswith("|")]
        options.page.write_text("\n".join([*text, *_table(found)]) + "\n", encoding="utf-8")
    counts = Counter(outcome.status for outcome in found)
    print(", ".join(f"{count} {status}" for status, count in counts.most_common()), file=sys.stderr)
    return int(counts["failed"] > 0)


def _tried(types: Sequence[str]) -> Iterator[Outcome]:
    """Yield what became of each type, each tried in a process of its own: one may hang or die."""
    import torch

    from pipeline.inspect.trials import FAILED, Outcome, try_type

    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")

    def child(kind: str, end: Any) -> None:
        end.send(try_type(kind))

    for kind in types:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(kind, theirs))
        process.start()
        theirs.close()
        try:
            yield ours.recv() if ours.poll(_PATIENCE) else Outcome(kind, FAILED, f"no result after {_PATIENCE} s")
        except EOFError:
            yield Outcome(kind, FAILED, "its process died")
        finally:
            process.kill()
            process.join()


def _table(found: Sequence[Outcome]) -> list[str]:
    """Return the table of types for the documentation."""
    rows = [f"| `{outcome.type}` | {outcome.status} | {outcome.reason.replace('|', '/')} |" for outcome in found]
    return ["| type | status | reason |", "| --- | --- | --- |", *rows]


if __name__ == "__main__":
    sys.exit(main())
