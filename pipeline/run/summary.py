"""Results for readers: the table with dense beside pruned, headline sentences, and where everything is.

``python -m pipeline.run.summary`` prints them for the newest results, from finished jobs only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.analysis import theorems
from pipeline.analysis.score_rows import FINAL, Numbers, Row, rows_of_jobs
from pipeline.common.arguments import Arguments
from pipeline.common.errors import plain
from pipeline.common.terminal import show_table
from pipeline.evaluate.comparison import MEAN, NO_CHANGE, NO_SIGNAL, TOO_FEW
from pipeline.store.artifacts import Store
from pipeline.store.origins import shown_together
from pipeline.store.records import OK, JobRecord, load_records
from pipeline.tables.choice import choose
from pipeline.tables.job_columns import DENSE
from pipeline.tables.job_tables import JobTables
from pipeline.tables.labels import model_names
from pipeline.tables.read import load
from pipeline.tables.replicates import average_comparisons
from pipeline.tables.stored import DIAGNOSIS, NoTables, check_folders
from pipeline.tables.variants import VARIANT, Variant

# Names of the columns by kind of task; those in ALWAYS are shown even where nothing was evaluated.
KIND_COLUMNS = {"generative": "generation", "multiple_choice": "multiple choice", "retrieval": "retrieval"}
ALWAYS = ("generative", "multiple_choice")
SETTINGS_NAMED = 3
# Command for results elsewhere than in `outputs`.
_SYNC = "python -m pipeline.track.sync outputs="


def show_scores(jobs: Sequence[JobTables], store: Store, title: str) -> None:
    """Print a row for each job, dense first: means by kind of task, perplexity, and the deviation of final states.

    Jobs that differ only in their seed or draw share a row, whose numbers are then mean ± standard deviation.
    """
    read = {job.record.job: job for job in jobs}
    dense = [job for job in load_records(store.jobs) if job.pruner == DENSE and job.status == OK]
    rows = rows_of_jobs([job.record for job in jobs], dense)
    found = Numbers(read.get(job.job) or JobTables(job, store) for row in rows for job in row.jobs)
    texts = sorted({text for own in found.texts.values() for text in own})
    kinds = [kind for kind in KIND_COLUMNS if kind in ALWAYS or any(kind in own for own in found.means.values())]
    numbers = [(KIND_COLUMNS[kind], found.means, kind) for kind in kinds]
    numbers += [("ppl" if len(texts) == 1 else f"ppl {text}", found.texts, text) for text in texts]
    numbers += [(name.replace("_", " ") if name != "kl" else "KL", found.final, name) for name in FINAL]
    several = any(len(row.jobs) > 1 for row in rows)
    conditions = list(dict.fromkeys(key for row in rows for key in row.conditions))
    options = any(row.options for row in rows)
    columns = ["model", "pruner", "sparsity", *(["options"] if options else []), *conditions]
    columns += [*(["n"] if several else []), "removed", *(name for name, _, _ in numbers), "status"]
    names, lines = model_names((row.first.model_id, row.first.model) for row in rows), []
    for row in rows:
        who = [names[row.first.model_id], row.first.pruner, row.first.sparsity, *([row.options] if options else [])]
        who += [*(row.conditions.get(key, "") for key in conditions), *([str(len(row.jobs))] if several else [])]
        removed = row.repeated({job.job: job.achieved for job in row.jobs})
        cells: list[Any] = [None if removed is None else f"{removed.mean:.1%}"]
        for _, values, name in numbers:
            number = row.repeated({job: own.get(name) for job, own in values.items()})
            cells.append(None if number is None else number.text)
        lines.append([*who, *cells, row.status])
    show_table(title, columns, lines, _note(rows, kinds, several, found.left_out))


def _note(rows: Sequence[Row], kinds: Sequence[str], several: bool, left_out: Sequence[str]) -> str:
    """Return a note on what the numbers are and under which conditions they were computed."""
    settings = dict.fromkeys(row.first.settings for row in rows)
    lines = [*settings] if len(settings) <= SETTINGS_NAMED else [f"{len(settings)} different settings"]
    said = f"{', '.join(KIND_COLUMNS[kind] for kind in kinds)}: mean score over the tasks of the job. "
    said += "cos, KL: final hidden state, each model free-running; averaged over steps, then over prompts."
    said += f" Left out of the means: {', '.join(left_out)}." if left_out else ""
    said += " n: seeds or draws; their mean ± standard deviation." if several else ""
    seeds = sorted({job.seed for row in rows for job in row.jobs})
    lines.append(f"seed {', '.join(map(str, seeds))}")
    differing = shown_together(job.origin for row in rows for job in row.jobs if job.origin)
    return "\n".join([*lines, said, *([f"{differing[0].upper()}{differing[1:]}."] if differing else [])])


def headlines(jobs: Sequence[JobTables]) -> list[str]:
    """Return a sentence for each pruned setting: which kinds of task are lower, higher, unchanged or undecided.

    It rests on each job's own comparison with the dense model on the same items; a mean is over that job's tasks.
    """
    sentences, read = [], {job.record.job: job for job in jobs}
    for row in rows_of_jobs([job.record for job in jobs if job.record.pruner != DENSE], []):
        parts = [part for job in row.jobs if (part := read[job.job].comparisons) is not None]
        if not parts:
            continue
        frame = pd.concat(parts, ignore_index=True).assign(options=row.options)
        means = average_comparisons(frame[frame["task"] == MEAN]).set_index("kind")
        said = [f"{KIND_COLUMNS[kind]} {_said(means.loc[kind])}" for kind in KIND_COLUMNS if kind in means.index]
        if said:
            name = Variant(row.first.pruner, row.first.sparsity, row.options).label
            asked = ", ".join(f"{key}={value}" for key, value in row.conditions.items())
            count = f" ({len(row.jobs)} seeds or draws)" if len(row.jobs) > 1 else ""
            sentences.append(f"{name}{f' ({asked})' if asked else ''}{count}: {', '.join(said)}")
    return sentences


def _said(mean: pd.Series) -> str:
    """Describe the change of a mean score in words and numbers."""
    words = {NO_CHANGE: "unchanged", TOO_FEW: "inconclusive", NO_SIGNAL: "inconclusive"}
    why = f", {mean['verdict']}" if mean["verdict"] in (TOO_FEW, NO_SIGNAL) else ""
    limits = f"{mean['difference']:+.3f} [{mean['low']:+.3f}, {mean['high']:+.3f}]"
    verdict = words.get(mean["verdict"], mean["verdict"])
    return f"{verdict} ({mean['dense']:.3f} → {mean['pruned']:.3f}, {limits}{why})"


def show_theorems(store: Store) -> None:
    """Print rank correlations of the theorems' estimates with measured values by layer, and where they do not track."""
    measures = load(store.root, choose(store.root)).measures
    tracked = theorems.tracking(measures) if len(measures) else measures
    if tracked.empty:
        return
    print("\nrank correlation between estimated and measured values over positions, by layer (× 100)")
    for (*variant, sublayer, theorem), rows in tracked.groupby([*VARIANT, "sublayer", "theorem"], sort=False):
        cells = ["  –" if math.isnan(value) else f"{round(100 * value):3d}" for value in rows["rank_correlation"]]
        print(f"  {f'{Variant(*variant).label}, {sublayer}':28s}theorem {theorem:8s}{' '.join(cells)}")
    for sentence in theorems.breaks(tracked):
        print(f"  {sentence}")


def show_places(jobs: Sequence[JobRecord], store: Store) -> None:
    """Print where tables, figures and W&B runs of these jobs are."""
    if any(job.status == OK for job in jobs):
        print(f"tables   {shown(store.tables)}")
    if store.figures.is_dir():
        print(f"figures  {shown(store.figures)}")
    if store.report.is_file():
        print(f"report   {shown(store.report)}")
    runs = [job.wandb for job in jobs if job.wandb.get("mode") not in (None, "disabled")]
    offline = [Path(run["directory"]) for run in runs if run.get("sync")]
    if offline:
        send = "make sync" if shown(store.root) == "outputs" else f"{_SYNC}{shown(store.root)}"
        print(f"W&B      {shown(offline[0].parent)} ({len(offline)} offline; upload them with: {send})")
    for url in sorted({run["url"] for run in runs if run.get("url")}):
        print(f"W&B      {url}")


def shown(path: Path) -> str:
    """Return a path as a person would type it: relative to the working folder if it lies within."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _newest(store: Store) -> list[JobRecord]:
    """Return the finished jobs of the newest one's model and conditions: dense first, then by pruner and sparsity."""
    jobs = [job for job in load_records(store.jobs) if job.status == OK]
    mine = [job for job in jobs if (job.model_id, job.settings_id) == (jobs[-1].model_id, jobs[-1].settings_id)]
    return sorted(mine, key=lambda job: (job.pruner != DENSE, job.pruner, job.achieved or 0.0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the newest results. Returns exit status 1 if there are none or they are damaged, else 0."""
    parser = Arguments(prog="python -m pipeline.run.summary", description="Print the newest results.")
    chosen: Any = parser.parse_args(arguments)
    try:
        check_folders(chosen.outputs)
        return _print_newest(Store(chosen.outputs))
    except NoTables as error:
        print(error, file=sys.stderr)
    except Exception as error:
        print(f"not everything can be shown: {plain(error)}; {DIAGNOSIS}", file=sys.stderr)
    return 1


def _print_newest(store: Store) -> int:
    if not any(job.status == OK for job in load_records(store.jobs)):
        print(f"no finished job in {shown(store.root)}; `make demo` makes some", file=sys.stderr)
        return 1
    jobs = _newest(store)
    tables = [JobTables(job, store) for job in jobs]
    show_scores(tables, store, title="Newest results")
    for sentence in headlines(tables):
        print(f"  {sentence}")
    show_theorems(store)
    print()
    show_places(jobs, store)
    return 0


if __name__ == "__main__":
    sys.exit(main())
