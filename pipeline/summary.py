"""Results for a person: the table with dense beside pruned, headline sentences, and where everything is.

``python -m pipeline.summary`` prints them for the newest results, from finished jobs alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.causes import plain
from pipeline.comparison import NO_CHANGE, NO_SIGNAL, TOO_FEW
from pipeline.console import show_table
from pipeline.figures import theorems
from pipeline.figures.choice import SCORES, choose
from pipeline.figures.compared import means_of, with_pooled
from pipeline.figures.table_files import DIAGNOSIS, NoTables, check_folders
from pipeline.figures.tables import load, newest
from pipeline.records import OK, JobRecord, load_records
from pipeline.store import Store
from pipeline.tables import COMPARISONS, measures_of, scores_of

DENSE, PERPLEXITY = "dense", "perplexity"
# What the columns of the kinds of task are called; those of ALWAYS are there even where nothing was evaluated.
KIND_COLUMNS = {"generative": "generation", "multiple_choice": "choice", "retrieval": "retrieval"}
ALWAYS = ("generative", "multiple_choice")
# For results elsewhere than in `outputs`.
_SYNC = "python -m pipeline.tracking.sync --outputs"


def show_scores(jobs: Sequence[JobRecord], store: Store, title: str) -> None:
    """A row a setting, dense first: means of each kind of task, perplexity, and the deviation of the final states.

    Jobs of several task suites under the same settings share a row.
    """
    baselines = [job for job in load_records(store.jobs) if job.pruner == DENSE]
    settings = {job.settings for job in jobs}
    mine = [job for job in baselines if job.settings in settings and job.job not in {job.job for job in jobs}]
    groups: dict[tuple[str, str, str], list[JobRecord]] = {}
    for job in [*mine, *(job for job in jobs if job.pruner == DENSE), *(job for job in jobs if job.pruner != DENSE)]:
        groups.setdefault((job.settings, job.pruner, job.sparsity), []).append(job)
    scores = _scores_of(groups, store)
    perplexities = sorted(set(scores.loc[scores["kind"] == PERPLEXITY, "task"])) if len(scores) else []
    kinds = [kind for kind in KIND_COLUMNS if kind in ALWAYS or (len(scores) and (scores["kind"] == kind).any())]
    rows = []
    for key, group in groups.items():
        own = scores[scores["row"].map(lambda row, key=key: row == key)] if len(scores) else scores
        means = mean_scores(own[own["shared"]]) if len(own) else {}
        texts = own[own["kind"] == PERPLEXITY].set_index("task")["value"].to_dict() if len(own) else {}
        final = next(filter(None, (final_deviation(measures_of(job, store)) for job in group)), {})
        removed = next((f"{job.achieved:.1%}" for job in group if job.achieved is not None), None)
        first = group[0]
        status = next((job.status for job in group if job.status != OK), OK)
        rows.append(
            [first.model, first.pruner, first.sparsity, removed, *(means.get(kind) for kind in kinds)]
            + [texts.get(text) for text in perplexities]
            + [final.get(name) for name in ("cos_h", "cos_z", "cos_p", "kl")]
            + [status]
        )
    columns = ["model", "pruner", "sparsity", "removed", *(KIND_COLUMNS[kind] for kind in kinds)]
    columns += ["ppl"] if len(perplexities) == 1 else [f"ppl {text}" for text in perplexities]
    note = "\n".join(dict.fromkeys(job.settings for job in jobs))
    show_table(
        title,
        [*columns, "cos h", "cos z", "cos p", "KL", "status"],
        rows,
        f"{note}\n{', '.join(KIND_COLUMNS[kind] for kind in kinds)}: mean score over the tasks that all rows have. "
        "cos, KL: final state, each model on its own continuation.",
    )


def _scores_of(groups: Mapping[tuple[str, str, str], Sequence[JobRecord]], store: Store) -> pd.DataFrame:
    """The main scores of all rows, each task asked alike: with the row, and whether all rows of its kind have it.

    Dense counts only with tasks that a pruned row has too, if there is a pruned row.
    """
    parts, jobs = [], []
    for key, group in groups.items():
        for job in group:
            frame = scores_of(job, store)
            jobs.append(job)
            if frame is not None:
                parts.append(frame.assign(row=[key] * len(frame)))
    if not parts:
        return pd.DataFrame()
    frame = pd.concat(parts, ignore_index=True)
    order = {job.job: place for place, job in enumerate(sorted(jobs, key=lambda job: job.finished or "~"))}
    kept = pd.concat([newest(own, SCORES, order) for _, own in frame.groupby("settings")], ignore_index=True)
    about = ["settings", "kind", "task"]
    pruned = kept[kept["pruner"] != DENSE]
    if len(pruned):
        known = pd.MultiIndex.from_frame(pruned[about])
        kept = kept[pd.MultiIndex.from_frame(kept[about]).isin(known)]
    rows = kept["row"].astype(str)
    needed = rows.groupby([kept["settings"], kept["kind"]]).transform("nunique")
    return kept.assign(shared=rows.groupby([kept[name] for name in about]).transform("nunique") == needed)


def mean_scores(scores: pd.DataFrame | None) -> dict[str, float]:
    """Mean over tasks of each kind, of the main metric of every task."""
    if scores is None:
        return {}
    main = scores[scores["main"]]
    return {str(kind): float(value) for kind, value in main.groupby("kind")["value"].mean().items()}


def final_deviation(measures: pd.DataFrame | None) -> dict[str, float]:
    """Mean over prompts and steps of the free-running measures at the first temperature."""
    if measures is None:
        return {}
    final = measures[measures.protocol == "free_running"]
    if final.empty:
        return {}
    means = final[final.temperature == final.temperature.iloc[0]][["cos_h", "cos_z", "cos_p", "kl"]].mean()
    return {name: float(value) for name, value in means.items() if not math.isnan(value)}


def headlines(jobs: Sequence[JobRecord], store: Store) -> list[str]:
    """One sentence a pruned setting: which kinds of task are lower, higher, unchanged or undecided.

    From the comparisons of the same items; a mean is over the tasks that all these settings have.
    """
    path = store.tables / COMPARISONS
    if not path.is_file():
        return []
    order = {job.job: place for place, job in enumerate(jobs)}
    frame = pd.read_parquet(path)
    frame = frame[frame["job"].isin(order)]
    if frame.empty:
        return []
    means = means_of(with_pooled(newest(frame, "comparisons", order)))
    sentences = []
    for pruner, sparsity in dict.fromkeys((job.pruner, job.sparsity) for job in jobs):
        own = means[(means["pruner"] == pruner) & (means["sparsity"] == sparsity)].set_index("kind")
        said = [f"{KIND_COLUMNS[kind]} {_said(own.loc[kind])}" for kind in KIND_COLUMNS if kind in own.index]
        if said:
            sentences.append(f"{pruner} at {sparsity}: {', '.join(said)}")
    return sentences


def _said(mean: pd.Series) -> str:
    """What became of a mean score, in words and numbers."""
    words = {NO_CHANGE: "unchanged", TOO_FEW: "undecided", NO_SIGNAL: "undecided"}
    why = f", {mean['verdict']}" if mean["verdict"] in (TOO_FEW, NO_SIGNAL) else ""
    limits = f"{mean['difference']:+.2f} [{mean['low']:+.2f}, {mean['high']:+.2f}]"
    verdict = words.get(mean["verdict"], mean["verdict"])
    return f"{verdict} ({mean['dense']:.2f} → {mean['pruned']:.2f}, {limits}{why})"


def show_theorems(store: Store) -> None:
    """Do the theorems' estimates track the measured values? Rank correlations layer by layer, and where they do not."""
    measures = load(store.root, choose(store.root)).measures
    tracked = theorems.tracking(measures) if len(measures) else measures
    if tracked.empty:
        return
    print("\nrank correlation of estimate and measured value over positions, layer by layer (in hundredths)")
    for (pruner, sparsity, sublayer, theorem), rows in tracked.groupby(
        ["pruner", "sparsity", "sublayer", "theorem"], sort=False
    ):
        cells = ["  –" if math.isnan(value) else f"{round(100 * value):3d}" for value in rows["rank_correlation"]]
        print(f"  {f'{pruner} {sparsity}, {sublayer}':28s}theorem {theorem:8s}{' '.join(cells)}")
    for sentence in theorems.breaks(tracked):
        print(f"  {sentence}")


def show_places(jobs: Sequence[JobRecord], store: Store) -> None:
    """Where tables, figures and W&B runs of these jobs are."""
    if any(job.status == OK for job in jobs):
        print(f"tables   {shown(store.tables)}")
    if store.figures.is_dir():
        print(f"figures  {shown(store.figures)}")
    if store.report.is_file():
        print(f"report   {shown(store.report)}")
    runs = [job.wandb for job in jobs if job.wandb.get("mode") not in (None, "disabled")]
    offline = [Path(run["directory"]) for run in runs if run.get("sync")]
    if offline:
        send = "make sync" if shown(store.root) == "outputs" else f"{_SYNC} {shown(store.root)}"
        print(f"W&B      {shown(offline[0].parent)} ({len(offline)} offline; to send them: {send})")
    for url in sorted({run["url"] for run in runs if run.get("url")}):
        print(f"W&B      {url}")


def shown(path: Path) -> str:
    """A path as a person would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _newest(store: Store) -> list[JobRecord]:
    """The finished jobs that can be compared with the newest one, by pruner and achieved sparsity."""
    jobs = [job for job in load_records(store.jobs) if job.status == OK]
    mine = [job for job in jobs if job.settings == jobs[-1].settings]
    return sorted(mine, key=lambda job: (job.pruner != DENSE, job.pruner, job.achieved or 0.0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the newest results. Exit status 1 if there are none, or they are damaged."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.summary", description="Print the newest results.")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of results (default: outputs)")
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
    show_scores(jobs, store, title="Newest results")
    for sentence in headlines(jobs, store):
        print(f"  {sentence}")
    show_theorems(store)
    print()
    show_places(jobs, store)
    return 0


if __name__ == "__main__":
    sys.exit(main())
