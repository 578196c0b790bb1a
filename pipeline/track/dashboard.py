"""``python -m pipeline.track.dashboard``: a W&B workspace and report of a sweep, or their JSON without a server."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.common.arguments import Arguments
from pipeline.common.errors import plain
from pipeline.common.files import write_bytes
from pipeline.common.packages import absent
from pipeline.config.choices import nearest
from pipeline.store.records import OK, OUTCOME, JobRecord, load_records
from pipeline.tables.job_columns import DENSE
from pipeline.track.connection import EXTRA, prepare_import, resolve_mode
from pipeline.track.keys import FIGURES
from pipeline.track.names import PROJECT, folder_of_runs
from pipeline.track.readback import RunRecord, read_run

if TYPE_CHECKING:
    from pipeline.track.pages import Shown

FOLDER, MEMORY = "dashboard", "published.json"
_CURVES = "history:over_sparsity/"
# Number of the newest runs without a job among which the closing run is searched.
_LOOKED_AT = 20


@dataclass(frozen=True)
class Sweep:
    """Jobs of one command, or of one sweep of W&B's agents, that have runs. ``name`` is their W&B group."""

    name: str
    jobs: list[JobRecord]

    @property
    def unsent(self) -> int:
        """Number of its runs that are only on this disk."""
        folders = [Path(job.wandb["directory"]) for job in self.jobs if job.wandb.get("sync")]
        return sum(not any(folder.glob("*.synced")) for folder in folders)


def sweeps(outputs: Path) -> list[Sweep]:
    """Return all sweeps whose jobs have runs, the newest last, each with the dense model that it is compared with."""
    groups: dict[str, list[JobRecord]] = {}
    for folder in (outputs / "runs").glob("*"):
        for job in load_records(folder, f"**/{OUTCOME}"):
            if job.wandb.get("id"):
                groups.setdefault(job.wandb.get("group") or folder.name, []).append(job)
    for job in load_records(outputs / "jobs"):
        own = groups.get(job.wandb.get("group", ""))
        if own and job.pruner == DENSE and all(job.job != other.job for other in own):
            own.append(job)
    found = [Sweep(name, sorted(jobs, key=lambda job: job.finished)) for name, jobs in groups.items()]
    return sorted(found, key=lambda sweep: sweep.jobs[-1].finished)


def shown(sweep: Sweep, outputs: Path) -> tuple[Shown, str]:
    """Return what to show of a sweep, by what its runs have logged, and their entity, empty if they name none."""
    from pipeline.plot.style import pruner_colours
    from pipeline.track.pages import Shown
    from pipeline.track.panels import keys_of_run

    runs = list(_samples(sweep))
    closing = list(_closing_run(sweep, outputs))
    keys = set().union(*map(keys_of_run, [*runs, *closing]))
    newest = sweep.jobs[-1]
    about = runs[-1].run if runs else {}
    pruners = {job.pruner for job in sweep.jobs}
    return Shown(
        sweep=sweep.name,
        project=about.get("project") or newest.config.get("wandb.project") or PROJECT,
        runs={job.wandb["id"]: job.pruner for job in sweep.jobs},
        colours=pruner_colours(pruners),
        logged=keys or None,
        curves=sorted({key.removeprefix(_CURVES).rpartition("/")[0] for key in keys if key.startswith(_CURVES)}),
        figures=sorted(key.removeprefix("media:") for key in keys if key.startswith("media:figures/")),
        closed=bool(closing),
        about=newest.settings,
    ), about.get("entity") or newest.config.get("wandb.entity") or ""


def _samples(sweep: Sweep) -> Iterator[RunRecord]:
    """Yield a run of each pruner and suite, read from its log if that still exists: the newest that ended well."""
    kinds = {}
    for job in sorted(sweep.jobs, key=lambda job: job.status == OK):
        kinds[job.pruner, job.config.get("task.name")] = job
    for job in kinds.values():
        yield from _parts(Path(job.wandb["directory"]), job.wandb["id"])


def _parts(folder: Path, run_id: str) -> Iterator[RunRecord]:
    """Yield what the logs here have of a run, oldest first: each job that has resumed it has left one."""
    folders = [path.parent for path in folder.parent.glob(f"*run-*/run-{run_id}.wandb")]
    for path in sorted(folders, key=lambda path: path.name.removeprefix("offline-")):
        with suppress(RuntimeError, OSError):
            yield read_run(path)


def _closing_run(sweep: Sweep, outputs: Path) -> Iterator[RunRecord]:
    """Yield the parts of the run with the figures that a sweep logs at its end. It belongs to no job."""
    known = {Path(job.wandb["directory"]).name for job in sweep.jobs}
    folders = [path for path in folder_of_runs(outputs).glob("*run-*") if path.name not in known and path.is_dir()]
    newest = sorted(folders, key=lambda path: re.sub(r"^(offline-)?run-", "", path.name), reverse=True)
    for folder in newest[:_LOOKED_AT]:
        with suppress(RuntimeError, OSError):
            run = read_run(folder).run
            if (run.get("run_group"), run.get("job_type")) == (sweep.name, FIGURES):
                yield from _parts(folder, run["run_id"])
                return


def build(sweep: Sweep, outputs: Path, offline: bool) -> int:
    """Write the JSON of both pages; publish them if a server can be reached, and print where they are."""
    if missing := absent("wandb_workspaces", EXTRA):
        print(missing, file=sys.stderr)
        return 1
    prepare_import()
    from pipeline.track import pages

    facts, entity = shown(sweep, outputs)
    folder = outputs / FOLDER
    for name, page in (("workspace", pages.workspace(facts)), ("report", pages.report(facts))):
        path = folder / f"{sweep.name}-{name}.json"
        write_bytes(path, pages.specification(page).encode())
        print(f"{name:11s}{path}")
    if sweep.unsent:
        print(f"{sweep.unsent} of {len(sweep.jobs)} runs exist only on this disk: `make sync` uploads them")
    connection = resolve_mode("offline" if offline else "auto")
    if connection.mode != "online":
        reason = f" ({connection.reason})" if connection.reason else ""
        again = f"python -m pipeline.track.dashboard outputs={outputs} --sweep {sweep.name}"
        print(f"not published{reason}; with an API key and network access, publish with: {again}")
        return 0
    from pipeline.track.publish import publish

    try:
        addresses = publish(facts, entity, folder / MEMORY)
    except Exception as error:
        print(
            f"not published: {plain(error)}; the project must exist (`make sync` creates it) and the API key must be "
            f"valid (`wandb login`); if the pages were deleted in W&B, remove {folder / MEMORY}",
            file=sys.stderr,
        )
        return 1
    for name, address in addresses.items():
        print(f"{name:11s}{address}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns exit status 2 for an unknown sweep, 1 if a server rejects the pages, else 0."""
    parser = Arguments(
        prog="python -m pipeline.track.dashboard",
        description="Build a W&B workspace and report for a sweep. Without a server, only their JSON is written.",
    )
    parser.add_argument("--sweep", help="name of the sweep, a folder in outputs/runs (default: the newest)")
    parser.add_argument("--offline", action="store_true", help="write the JSON without publishing")
    chosen: Any = parser.parse_args(arguments)
    found = sweeps(chosen.outputs)
    if not found:
        print(f"no job in {chosen.outputs} has a W&B run; run one with wandb.mode=auto or offline", file=sys.stderr)
        return 2
    names = {sweep.name: sweep for sweep in found}
    if chosen.sweep and chosen.sweep not in names:
        print(f"no sweep is named {chosen.sweep}; {nearest(chosen.sweep, names)}", file=sys.stderr)
        return 2
    return build(names[chosen.sweep] if chosen.sweep else found[-1], chosen.outputs, chosen.offline)


if __name__ == "__main__":
    sys.exit(main())
