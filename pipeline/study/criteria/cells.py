"""Items of all jobs of an outputs folder, by cell: model, tasks, text and budget, beside the dense model's scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.analysis.pooled_criteria import DRAW, ITEM
from pipeline.common.files import replacing
from pipeline.config.signature import takes_sparsity
from pipeline.evaluate.comparison import MEAN
from pipeline.store.artifacts import Store
from pipeline.store.integrity import MANIFEST, read_sealed
from pipeline.store.records import OK, load_records
from pipeline.study.findings.versions import versions_of_jobs
from pipeline.tables.job_tables import JobTables
from pipeline.tables.load import OutputTables
from pipeline.tables.variants import DENSE

KEYS = [*ITEM, "kind", "unit", "criterion", "replicate"]
# What is evaluated at once: all but the task and the item.
EVALUATION = [*DRAW, "kind", "unit", "criterion", "replicate"]
COLUMNS = [*KEYS, "score", "dense", "chance", "solved"]
# Stages whose versions say which code gave the scores.
STAGES = ("decision", "evaluation")
SEARCH = ["model", "text", "draw", "unit", "criterion", "sparsity"]
COSTS = [*SEARCH, "forward_tokens", "seconds", "removed", "reached", *STAGES, "commit", "started"]


def cells_of(tables: OutputTables) -> pd.DataFrame:
    """Return the items of every pruned job that was evaluated: `COLUMNS`.

    ``text`` is the calibration with its options, ``draw`` those that draw it anew, ``tasks`` all tasks of the job;
    ``chance`` is the task's chance level, and ``solved`` whether the dense model is clearly above it. Text and draw are
    empty for a pruner that reads no text: see `in_every_text`.
    """
    items = tables["items"]
    if items.empty:
        return pd.DataFrame(columns=COLUMNS)
    items = items.assign(
        tasks=items["job"].map(items.groupby("job")["task"].agg(lambda names: " ".join(sorted(set(names)))))
    )
    same = ["model_id", "settings_id", "seed", "kind", "task", "item"]
    dense = items[items["pruner"] == DENSE].drop_duplicates(same, keep="last").set_index(same)["score"].rename("dense")
    pruned = _who(items[items["pruner"] != DENSE], tables["jobs"]).join(dense, on=same, how="inner")
    pruned = pruned.merge(_levels(tables["comparisons"]), on=["job", "kind", "task"])
    return pruned[COLUMNS].reset_index(drop=True)


def in_every_text(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `named`; criteria without a text stand in all cells of the same model, tasks, unit and budget.

    ``reads`` says whether a criterion has read the text that it stands beside. Rows that have been through this stay.
    """
    if "reads" in rows:
        return rows
    rows = rows.astype({"text": str, "draw": str, "read": str})
    rows = rows.assign(reads=rows["text"] != "")
    blind = ~rows["reads"]
    where = ["model", "tasks", "unit", "sparsity"]
    about = ["text", "draw", "read"]
    texts = rows.loc[~blind, [*where, *about]].drop_duplicates()
    repeated = rows[blind].drop(columns=about).merge(texts, on=where, how="left")
    return pd.concat([rows[~blind], repeated.fillna(dict.fromkeys(about, ""))], ignore_index=True)


def several(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells that have several criteria, not only one with other options: they would move its mean alone."""
    pruners = cells["criterion"].astype(str).str.partition(",")[0]
    return cells[pruners.groupby([cells[key] for key in DRAW]).transform("nunique") > 1]


def named(cells: pd.DataFrame, costs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both tables with ``read``, the name of the text: that of its calibration, empty for none.

    Texts of one calibration have the same name, whichever families they are of: these are the direction of a
    comparison. Other options are in the name where they differ from those of most searches.
    """
    searches = costs["text"].astype(str).value_counts()
    names = _names(searches.reindex(searches.index.union(cells["text"].astype(str).unique()), fill_value=0))
    return cells.assign(read=cells["text"].map(names)), costs.assign(read=costs["text"].map(names))


def _names(counts: pd.Series) -> dict[str, str]:
    usual: dict[str, dict[str, Any]] = {}
    names = {}
    for text in sorted(map(str, counts.index), key=lambda text: (-counts[text], text)):
        name, _, told = text.partition(" ")
        options = {key: value for key, value in json.loads(told or "{}").items() if key != "families"}
        most = usual.setdefault(name, options)
        other = [f"{key} {value}" for key, value in options.items() if value != most.get(key)]
        names[text] = ", ".join([name, *other])
    return names


def costs_of(tables: OutputTables, outputs: Path) -> pd.DataFrame:
    """Return what every search cost and found: `COSTS`.

    ``forward_tokens`` are those sent through the model to choose at this budget, from nothing; they are missing of
    decisions that were made before they were counted. ``seconds`` are the processor's for this decision alone, which
    may go on from that at a smaller budget. ``removed`` names the units, ``reached`` is the score of the search's last
    step.
    """
    jobs = _who(tables["jobs"], tables["jobs"])
    jobs = jobs[(jobs["pruner"] != DENSE) & (jobs["replicate"] == 1)]
    steps = tables["rankings"]
    path = steps[steps["step"] >= 0].sort_values("step") if len(steps) else pd.DataFrame(columns=["job"])
    reached = path.groupby("job")["score"].last() if len(path) else pd.Series(dtype=float)
    made = pd.DataFrame(dict(_made(outputs)), index=["removed", "forward_tokens", "seconds", *STAGES]).T
    found = jobs.assign(reached=jobs["job"].map(reached)).join(made, on="job")
    found = found.sort_values("sparsity_value", kind="stable")
    found = found.astype(dict.fromkeys(("forward_tokens", "seconds", *STAGES), float))
    # Jobs that are judged by other tasks share a decision.
    return found.drop_duplicates(SEARCH)[COSTS].reset_index(drop=True)


def merged(stored: Path, found: pd.DataFrame, keys: Iterable[str], whole: Iterable[str] = ()) -> pd.DataFrame:
    """Return the rows of a stored table and those found now, which replace stored ones.

    Of stored rows whose ``whole`` is found none stays, of others none with the same ``keys``: fewer items of a cell
    that was run again, perhaps with other units, must not stand among those of before.
    """
    keys = list(keys)
    parts = [pd.read_parquet(stored)] if stored.is_file() else []
    if parts and len(found) and (names := list(whole)):
        again = pd.MultiIndex.from_frame(found[names].astype(str)).unique()
        parts = [parts[0][~pd.MultiIndex.from_frame(parts[0][names].astype(str)).isin(again)]]
    both = pd.concat([part for part in (*parts, found) if len(part)] or [found], ignore_index=True)
    return both.drop_duplicates(keys, keep="last").sort_values(keys, kind="stable").reset_index(drop=True)


def save(frame: pd.DataFrame, path: Path) -> None:
    """Write a table; texts that repeat are stored once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = frame.select_dtypes(exclude=["number", "bool"]).columns
    with replacing(path) as scratch:
        frame.astype(dict.fromkeys(words, "category")).to_parquet(scratch, index=False, compression="zstd")


def _who(rows: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the text that their criterion read, its draw, the criterion's name, and its replicate."""
    criteria = {
        job: _criterion(str(pruner), options, json.loads(changed))
        for job, pruner, options, changed in jobs[["job", "pruner", "pruner_options", "changed"]].itertuples(
            index=False
        )
    }
    reads = rows["calibration"] != ""
    text = (rows["calibration"] + " " + rows["calibration_options"]).where(reads, "")
    draws = [
        f"draw {draw:.0f}, seed {seed:.0f}" if read else ""
        for read, draw, seed in zip(reads, rows["calibration_draw"], rows["calibration_seed"], strict=True)
    ]
    return rows.assign(
        text=text,
        draw=draws,
        criterion=rows["job"].map(criteria),
        replicate=rows["pruner_draw"],
    )


def _criterion(pruner: str, options: str, changed: Iterable[str]) -> str:
    """Return the pruner's name, with the options that differ from its file, whatever else was run."""
    own = json.loads(options)
    words = [f"{name} {own[name]}" for name in changed if name in own]
    return ", ".join([pruner, *words])


def _levels(comparisons: pd.DataFrame) -> pd.DataFrame:
    own = comparisons[comparisons["task"] != MEAN]
    return own.assign(solved=own["dense_low"] > own["chance"])[["job", "kind", "task", "chance", "solved"]]


def _made(outputs: Path) -> Iterable[tuple[str, list[Any]]]:
    """Yield what each finished job removed, tokens and processor seconds of its decision, and versions of `STAGES`."""
    store = Store(outputs)
    for record in load_records(store.jobs):
        path = record.artifacts.get("decision")
        if record.status == OK and path and takes_sparsity(record.pruner):
            cost = read_sealed(store.root / path / MANIFEST).get("cost") or {}
            versions = versions_of_jobs([record], store, STAGES)
            told = [float(versions.get(name, float("nan"))) for name in STAGES]
            job = JobTables(record, store)
            removed = [f"{kind} {layer}" for kind, layers in job.dropped.items() for layer in layers]
            spent = [float("nan" if value is None else value) for value in (_sent(job, cost), cost.get("cpu_seconds"))]
            yield record.job, [", ".join(removed), *spent, *told]


def _sent(job: JobTables, cost: Mapping[str, Any]) -> float | None:
    """Return the tokens that went through the model to choose, if they were counted."""
    steps = [row["forward_tokens"] for row in job.decision.get("scores", ()) if "forward_tokens" in row]
    return sum(steps) if steps else cost.get("forward_tokens")
