"""Results for a person: the table with dense beside pruned, headline sentences, and where everything is.

``python -m pipeline.summary`` prints them for the newest results, from finished jobs alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.console import show_table
from pipeline.figures import theorems
from pipeline.figures.tables import choose, load
from pipeline.records import OK, JobRecord, load_records
from pipeline.store import Store
from pipeline.tables import measures_of, scores_of

DENSE = "dense"


def show_scores(jobs: Sequence[JobRecord], store: Store, title: str) -> None:
    """A row a setting, dense first: means of generation and multiple choice, and the deviation of the final states."""
    baselines = {job.settings: job for job in load_records(store.jobs) if job.pruner == DENSE}
    shown_jobs = [baselines[key] for key in dict.fromkeys(job.settings for job in jobs) if key in baselines]
    shown_jobs += [job for job in jobs if job.pruner != DENSE or job.settings not in baselines]
    rows = []
    for job in shown_jobs:
        means, final = mean_scores(scores_of(job, store)), final_deviation(measures_of(job, store))
        removed = None if job.achieved is None else f"{job.achieved:.1%}"
        rows.append(
            [job.model, job.pruner, job.sparsity, removed, means.get("generative"), means.get("multiple_choice")]
            + [final.get(name) for name in ("cos_h", "cos_z", "cos_p", "kl")]
            + [job.status]
        )
    columns = ["model", "pruner", "sparsity", "removed", "generation", "choice"]
    note = "\n".join(dict.fromkeys(job.settings for job in jobs))
    show_table(
        title,
        [*columns, "cos h", "cos z", "cos p", "KL", "status"],
        rows,
        f"{note}\ngeneration, choice: mean score over tasks. cos, KL: final state, each model on its own continuation.",
    )


def mean_scores(scores: pd.DataFrame | None) -> dict[str, float]:
    """Mean over tasks of each kind."""
    if scores is None:
        return {}
    return {str(kind): float(value) for kind, value in scores.groupby("kind")["value"].mean().items()}


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
    """One sentence a pruned setting: what became of generation and of multiple choice."""
    dense = next((mean_scores(scores_of(job, store)) for job in jobs if job.pruner == DENSE), {})
    sentences = []
    for job in jobs:
        means = mean_scores(scores_of(job, store))
        if job.pruner == DENSE or not {"generative", "multiple_choice"} <= dense.keys() & means.keys():
            continue
        changes = [
            f"{what} {dense[kind]:.2f} → {means[kind]:.2f}"
            for what, kind in (("generation", "generative"), ("multiple choice", "multiple_choice"))
        ]
        sentences.append(f"{job.pruner} at {job.sparsity}: {', '.join(changes)}")
    return sentences


def show_theorems(store: Store) -> None:
    """Do the theorems' estimates track the measured values? Rank correlations layer by layer, and where they do not."""
    tracked = theorems.tracking(load(store.root, choose(store.root)).measures)
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
        folder = shown(offline[0].parent)
        print(f"W&B      {folder} ({len(offline)} offline; to send them: wandb sync {folder}/offline-run-*)")
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
    """Print the newest results. Exit status 1 if there are none."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.summary", description="Print the newest results.")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of results (default: outputs)")
    chosen: Any = parser.parse_args(arguments)
    store = Store(chosen.outputs)
    if not any(job.status == OK for job in load_records(store.jobs)):
        print(f"no finished job in {chosen.outputs}; `make demo` makes some", file=sys.stderr)
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
