"""Command line of ``python -m pipeline.results``: jobs of an outputs folder. Imports neither torch nor a model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.common.access import NoAccess
from pipeline.common.arguments import Arguments
from pipeline.common.quiet import quiet_libraries
from pipeline.results import jobs
from pipeline.results.jobs import Refused
from pipeline.store.artifacts import Store
from pipeline.store.records import FAILED, INTERRUPTED, OK, SKIPPED, JobRecord

_STATES = (OK, FAILED, INTERRUPTED, SKIPPED)
_EPILOG = """examples:
  python -m pipeline.results                                   all jobs, one line each
  python -m pipeline.results pruner=wanda,sparsegpt sparsity=2:4 --since 3d
  python -m pipeline.results list task=matched --csv > jobs.csv
  python -m pipeline.results show 3f2a
  python -m pipeline.results compare 3f2a 90bc
  python -m pipeline.results samples 3f2a copying --wrong --dense
  python -m pipeline.results samples 3f2a --lm-eval DIR
  python -m pipeline.results verify --repair
  python -m pipeline.results gc --yes
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns exit status 2 for a bad command line, 1 if something is wrong with the results, else 0."""
    quiet_libraries()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0] not in _COMMANDS and given[0] not in ("-h", "--help")):
        given.insert(0, "list")
    chosen = _parser().parse_args(given)
    try:
        status = _COMMANDS[chosen.command](chosen)
        sys.stdout.flush()
        return status
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    except NoAccess as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `... | head` has seen enough; the flush at the end of the process must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _list(chosen: Any) -> int:
    from pipeline.results import listing

    store = Store(chosen.outputs)
    records = jobs.jobs_of(store)
    found = jobs.filtered(records, chosen.filters)
    if chosen.status:
        wanted = chosen.status.split(",")
        if strange := [word for word in wanted if word not in _STATES]:
            raise Refused(f"--status {strange[0]} does not exist; choose from {', '.join(_STATES)}")
        found = [record for record in found if record.status in wanted]
    if chosen.since:
        moment = jobs.since(chosen.since)
        found = [record for record in found if jobs.ended_since(record, moment)]
    form = _form(chosen)
    if not found and form == listing.TEXT:
        print(f"none of {len(records)} jobs matches")
        return 0
    listing.show(found, store, form)
    return 0


def _show(chosen: Any) -> int:
    from pipeline.results import details

    store = Store(chosen.outputs)
    for record in jobs.picked(jobs.jobs_of(store), chosen.jobs):
        details.show(record, store)
    return 0


def _compare(chosen: Any) -> int:
    from pipeline.results.side_by_side import compare

    store = Store(chosen.outputs)
    records = jobs.picked(jobs.jobs_of(store), chosen.jobs)
    if len(records) < 2:
        raise Refused("nothing to compare: give the ids of two or more jobs")
    compare(records, store)
    return 0


def _samples(chosen: Any) -> int:
    from pipeline.results import samples

    store = Store(chosen.outputs)
    (record,) = jobs.picked(jobs.jobs_of(store), [chosen.job])
    if chosen.lm_eval is not None:
        return _write_lm_eval(chosen, record, store)
    if chosen.limit is not None and chosen.limit < 1:
        raise Refused(f"--limit {chosen.limit} should be at least 1; without it a terminal shows a few of each task")
    wanted = samples.Wanted(chosen.tasks, chosen.limit, chosen.wrong, chosen.dense, chosen.full)
    samples.show_samples(record, store, wanted, _form(chosen))
    return 0


def _write_lm_eval(chosen: Any, record: JobRecord, store: Store) -> int:
    from pipeline.results.lm_eval_files import write_lm_eval
    from pipeline.results.samples import DENSE_EVALUATION, EVALUATION

    if chosen.tasks or chosen.limit is not None or chosen.wrong or chosen.full:
        raise Refused("--lm-eval writes every item in full; leave TASK, --limit, --wrong and --full out")
    for role in (EVALUATION, DENSE_EVALUATION) if chosen.dense else (EVALUATION,):
        try:
            print(write_lm_eval(record, store, role, chosen.lm_eval))
        except OSError as error:
            raise Refused(f"--lm-eval {chosen.lm_eval} cannot be written ({error.strerror}); give a folder") from error
    return 0


def _form(chosen: Any) -> str:
    from pipeline.results import listing

    return listing.JSON if chosen.json else listing.CSV if chosen.csv else listing.TEXT


def _verify(chosen: Any) -> int:
    from pipeline.results.verify import verify

    store = _there(chosen.outputs)
    records = jobs.picked(jobs.jobs_of(store), chosen.jobs) if chosen.jobs else None
    return verify(store, records, chosen.repair)


def _gc(chosen: Any) -> int:
    from pipeline.results.cleanup import collect_garbage

    return collect_garbage(_there(chosen.outputs), chosen.yes)


def _remove(chosen: Any) -> int:
    from pipeline.results.cleanup import remove_jobs

    return remove_jobs(_there(chosen.outputs), chosen.jobs, chosen.yes)


def _there(outputs: Path) -> Store:
    store = Store(outputs)
    if not (store.root / "store").is_dir():
        raise Refused(f"{store.root} contains no results; give their folder with outputs=DIR")
    return store


_COMMANDS = {
    "list": _list,
    "show": _show,
    "compare": _compare,
    "samples": _samples,
    "verify": _verify,
    "gc": _gc,
    "remove": _remove,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.results",
        description="Inspect an outputs folder: list, show, compare, verify and remove jobs and results.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Arguments)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")

    listed = command("list", "list jobs, one per line (the default command)")
    listed.add_argument(
        "filters", nargs="*", metavar="KEY=VALUE", help="as on the command line; commas separate alternatives"
    )
    listed.add_argument("--status", help=f"one or more of {','.join(_STATES)}")
    listed.add_argument("--since", help="ended since a date, or within a time span such as 3d or 12h")
    form = listed.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all details as JSON, for scripts")
    form.add_argument("--csv", action="store_true", help="one column per score as CSV, for scripts")
    _ids(command("show", "show a job's configuration, origin, costs, artifacts and error"), "+")
    _ids(command("compare", "compare jobs: what differs, with scores and measures side by side"), "+")
    _of_samples(command("samples", "show prompts, answers, gold answers and scores of a job's items"))
    checked = command("verify", "check every checksum, and the tables against their sources")
    _ids(checked, "*")
    checked.add_argument("--repair", action="store_true", help="quarantine what is damaged and rebuild the tables")
    collected = command("gc", "list, and with --yes remove, what no job refers to")
    removed = command("remove", "list, and with --yes remove, jobs and what only they need")
    _ids(removed, "+")
    for sub in (collected, removed):
        sub.add_argument("--yes", action="store_true", help="remove instead of listing what would be removed")
    return parser


def _of_samples(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="the beginning of a job's id")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="some of its tasks; all without one")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N items of each task")
    parser.add_argument("--wrong", action="store_true", help="only items whose score is below 1")
    parser.add_argument("--dense", action="store_true", help="the dense model's answers beside the job's")
    parser.add_argument("--full", action="store_true", help="texts of any length, not shortened")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all details as JSON, for scripts")
    form.add_argument("--csv", action="store_true", help="one line per item as CSV, for scripts")
    form.add_argument(
        "--lm-eval",
        type=Path,
        metavar="DIR",
        help="write results_*.json and samples_*.jsonl there, as lm-eval's --output_path --log_samples does",
    )


def _ids(parser: argparse.ArgumentParser, number: str) -> None:
    parser.add_argument("jobs", nargs=number, metavar="JOB", help="the beginning of a job's id")


if __name__ == "__main__":
    sys.exit(main())
