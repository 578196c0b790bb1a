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
from pipeline.store.records import FAILED, INTERRUPTED, OK, SKIPPED

_STATES = (OK, FAILED, INTERRUPTED, SKIPPED)
_EPILOG = """examples:
  python -m pipeline.results                                   all jobs, one line each
  python -m pipeline.results pruner=wanda,sparsegpt sparsity=2:4 --since 3d
  python -m pipeline.results list task=matched --csv > jobs.csv
  python -m pipeline.results show 3f2a
  python -m pipeline.results compare 3f2a 90bc
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
    form = listing.JSON if chosen.json else listing.CSV if chosen.csv else listing.TEXT
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


_COMMANDS = {"list": _list, "show": _show, "compare": _compare, "verify": _verify, "gc": _gc, "remove": _remove}


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
    checked = command("verify", "check every checksum, and the tables against their sources")
    _ids(checked, "*")
    checked.add_argument("--repair", action="store_true", help="quarantine what is damaged and rebuild the tables")
    collected = command("gc", "list, and with --yes remove, what no job refers to")
    removed = command("remove", "list, and with --yes remove, jobs and what only they need")
    _ids(removed, "+")
    for sub in (collected, removed):
        sub.add_argument("--yes", action="store_true", help="remove instead of listing what would be removed")
    return parser


def _ids(parser: argparse.ArgumentParser, number: str) -> None:
    parser.add_argument("jobs", nargs=number, metavar="JOB", help="the beginning of a job's id")


if __name__ == "__main__":
    sys.exit(main())
