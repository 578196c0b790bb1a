"""Results for readers: the table with dense beside pruned, the effects in sentences, and where everything is.

``python -m pipeline.run.summary`` prints them for the newest results, from finished jobs only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.analysis import theorems
from pipeline.analysis.effects import KIND_NAMES, Effect, effects, short_sentence, without_shares
from pipeline.analysis.score_rows import COSINES, KL, Numbers, Row, rows_of_jobs
from pipeline.common.arguments import Arguments
from pipeline.common.errors import plain
from pipeline.common.terminal import BAD, NARROW, columns_here, painted, show_table, wrapped
from pipeline.evaluate.comparison import MEAN
from pipeline.evaluate.verdict import MARGIN
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

# Kinds of task that have a column even where nothing was evaluated.
ALWAYS = ("generative", "multiple_choice")
SETTINGS_NAMED, MOST_SENTENCES = 3, 8
_RULE = (
    f"Kept: the whole 95 % interval of the difference is above -{100 * MARGIN:g} points; lost: all of it is below; "
    "otherwise it cannot be told."
)
_HEADING = "Of the dense score above chance, the largest gap between kinds of task first:"
# Command for results elsewhere than in `outputs`.
_SYNC = "python -m pipeline.track.sync outputs="


def show_results(jobs: Sequence[JobTables], store: Store) -> None:
    """Print a table with a row for each job, dense first, then what each variant retains, the largest gap first.

    The table has means by kind of task, perplexity, and the deviation of final states. Jobs that differ only in their
    seed or draw share a row, whose numbers are then mean ± standard deviation.
    """
    read = {job.record.job: job for job in jobs}
    dense = [job for job in load_records(store.jobs) if job.pruner == DENSE and job.status == OK]
    rows = rows_of_jobs([job.record for job in jobs], dense)
    names = model_names((row.first.model_id, row.first.model) for row in rows)
    told = told_effects(rows, read)
    numbers = Numbers(read.get(job.job) or JobTables(job, store) for row in rows for job in row.jobs)
    _show_scores(rows, names, numbers, {id(row): effect for row, effect in told})
    known = [(row, effect) for row, effect in told if effect.known]
    if told:
        print(f"\n{wrapped(_RULE)}\n{_HEADING}" if known else "")
    for row, effect in known[:MOST_SENTENCES]:
        about = [names[row.first.model_id]] if len(names) > 1 else []
        about += [f"{key}={value}" for key, value in row.conditions.items()]
        about += [f"{len(row.jobs)} seeds or draws"] if len(row.jobs) > 1 else []
        said = f"{short_sentence(effect)} ({', '.join(about)})" if about else short_sentence(effect)
        line = wrapped(said, "  ", "    ")
        print(painted(line, BAD, sys.stdout) if effect.lost else line)
    if len(known) > MOST_SENTENCES:
        print(f"  and {len(known) - MOST_SENTENCES} more, whose scores are in the table")
    for said in without_shares(effect for _, effect in told):
        print(wrapped(said, "  ", "    "))


def told_effects(rows: Sequence[Row], read: Mapping[str, JobTables]) -> list[tuple[Row, Effect]]:
    """Return the effect of each row of pruned jobs that were compared with dense, the largest gap first.

    Means are over the tasks that all jobs of one model under the same conditions share.
    """
    groups: dict[Any, list[pd.DataFrame]] = {}
    by_variant: dict[Any, Row] = {}
    for row in rows:
        parts = [part for job in row.jobs if job.job in read and (part := read[job.job].comparisons) is not None]
        if row.first.pruner == DENSE or not parts:
            continue
        frame = pd.concat(parts, ignore_index=True).assign(options=row.options)
        group = row.first.model_id, tuple(row.conditions.items())
        groups.setdefault(group, []).append(average_comparisons(frame[frame["task"] != MEAN]))
        by_variant[group, Variant(row.first.pruner, row.first.sparsity, row.options)] = row
    found = [
        (by_variant[group, effect.variant], effect)
        for group, frames in groups.items()
        for effect in effects(pd.concat(frames, ignore_index=True))
    ]
    return sorted(found, key=lambda pair: math.inf if math.isnan(pair[1].gap) else -pair[1].gap)


def _show_scores(rows: Sequence[Row], names: Mapping[str, str], found: Numbers, told: Mapping[int, Effect]) -> None:
    """Print the table, in which lost scores are coloured. ``told`` are effects by the id of a row."""
    texts = sorted({text for own in found.texts.values() for text in own})
    kinds = [kind for kind in KIND_NAMES if kind in ALWAYS or any(kind in own for own in found.means.values())]
    numbers = [(KIND_NAMES[kind], found.means, kind, 3) for kind in kinds]
    numbers += [("ppl" if len(texts) == 1 else f"ppl {text}", found.texts, text, 1) for text in texts]
    numbers += [(name.replace("_", " "), found.final, name, 3) for name in COSINES] + [("KL", found.forced, KL, 3)]
    several = any(len(row.jobs) > 1 for row in rows)
    conditions = list(dict.fromkeys(key for row in rows for key in row.conditions))
    columns = ["variant" if len(names) == 1 else "model, variant", *conditions, *(["n"] if several else []), "removed"]
    lines, colours = [], dict[tuple[int, int], str]()
    for place, row in enumerate(rows):
        label = Variant(row.first.pruner, row.first.sparsity, row.options).label
        who = [label if len(names) == 1 else f"{names[row.first.model_id]}, {label}"]
        who += [*(row.conditions.get(key, "") for key in conditions), *([str(len(row.jobs))] if several else [])]
        removed = row.repeated({job.job: job.achieved for job in row.jobs})
        cells: list[Any] = [None if removed is None else f"{100 * removed.mean:.1f} %"]
        for _, values, name, digits in numbers:
            number = row.repeated({job: own.get(name) for job, own in values.items()})
            cells.append(None if number is None else number.text(digits))
        lost = [own.kind for own in told[id(row)].kinds if own.lost] if id(row) in told else []
        colours |= {(place, len(columns) + kinds.index(kind)): BAD for kind in lost if kind in kinds}
        lines.append([*who, *cells])
    title = ", ".join(names.values()) if len(names) == 1 else ""
    heads = [*columns, *(name for name, *_ in numbers)]
    show_table(title, heads, lines, _note(rows, several, found.left_out), NARROW, colours)


def _note(rows: Sequence[Row], several: bool, left_out: Sequence[str]) -> str:
    """Return a note on what the numbers are and under which conditions they were computed."""
    settings = dict.fromkeys(row.first.settings for row in rows)
    seeds = f"seed {', '.join(map(str, sorted({job.seed for row in rows for job in row.jobs})))}"
    named = [*settings] if len(settings) <= SETTINGS_NAMED else [f"{len(settings)} different settings"]
    said = "Scores: means over tasks. cos: final states, each model on its own text; KL: both on the dense model's."
    said += f" Left out of the means: {', '.join(left_out)}." if left_out else ""
    said += " n: seeds or draws; their mean ± standard deviation." if several else ""
    differing = shown_together(job.origin for row in rows for job in row.jobs if job.origin)
    odd = [f"{differing[0].upper()}{differing[1:]}."] if differing else []
    return "\n".join([said, *named[:-1], f"{named[-1]} · {seeds}", *odd])


def show_theorems(store: Store) -> None:
    """Print rank correlations of the theorems' estimates with measured values by layer, and where they do not track."""
    measures = load(store.root, choose(store.root)).measures
    tracked = theorems.tracking(measures) if len(measures) else measures
    if tracked.empty:
        print("\nno measures of the layer protocol, from which the theorems are checked")
        return
    print("\n" + wrapped("Rank correlation between estimated and measured values over positions, by layer (× 100):"))
    for (*variant, sublayer, theorem), rows in tracked.groupby([*VARIANT, "sublayer", "theorem"], sort=False):
        cells = ["–" if math.isnan(value) else f"{round(100 * value)}" for value in rows["rank_correlation"]]
        print(wrapped(f"{Variant(*variant).label}, {sublayer}, theorem {theorem}: {' '.join(cells)}", "  ", "    "))
    for sentence in theorems.breaks(tracked):
        print(wrapped(sentence, "  ", "    "))


def show_places(jobs: Sequence[JobRecord], store: Store) -> None:
    """Print where the report, tables, figures and W&B runs of these jobs are."""
    if store.report.is_file():
        print(f"report   {shown(store.report)}")
    if any(job.status == OK for job in jobs):
        print(f"tables   {shown(store.tables)}")
    if store.figures.is_dir():
        print(f"figures  {shown(store.figures)}")
    runs = [job.wandb for job in jobs if job.wandb.get("mode") not in (None, "disabled")]
    offline = [Path(run["directory"]) for run in runs if run.get("sync")]
    if offline:
        send = "make sync" if shown(store.root) == "outputs" else f"{_SYNC}{shown(store.root)}"
        print(f"W&B      {shown(offline[0].parent)}")
        said = f"{' ' * 9}{len(offline)} run{'s are' if len(offline) > 1 else ' is'} on this disk alone; to upload: "
        # A command stays on one line, to be copied.
        print(f"{said}{send}" if len(said) + len(send) <= columns_here() else f"{said.rstrip()}\n{' ' * 9}{send}")
    urls = sorted({run["url"] for run in runs if run.get("url")})
    for project in dict.fromkeys(url.partition("/runs/")[0] for url in urls):
        own = [url for url in urls if url.startswith(f"{project}/runs/")]
        print(f"W&B      {own[0] if len(own) == 1 else f'{project} ({len(own)} runs)'}")


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
    parser.add_argument("--theory", action="store_true", help="how well the theorems' estimates track, layer by layer")
    chosen: Any = parser.parse_args(arguments)
    try:
        check_folders(chosen.outputs)
        return _print_newest(Store(chosen.outputs), chosen.theory)
    except NoTables as error:
        print(error, file=sys.stderr)
    except Exception as error:
        print(f"not everything can be shown: {plain(error)}; {DIAGNOSIS}", file=sys.stderr)
    return 1


def _print_newest(store: Store, theory: bool) -> int:
    if not any(job.status == OK for job in load_records(store.jobs)):
        print(f"no finished job in {shown(store.root)}; `make demo` makes some", file=sys.stderr)
        return 1
    jobs = _newest(store)
    show_results([JobTables(job, store) for job in jobs], store)
    if theory:
        show_theorems(store)
    print()
    show_places(jobs, store)
    return 0


if __name__ == "__main__":
    sys.exit(main())
