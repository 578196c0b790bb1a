"""Finding on lazy search: where it parts from full greedy search, and at what cost, from the kept tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.study.criteria.__main__ import SEARCHES
from pipeline.study.criteria.cells import SEARCH, STAGES
from pipeline.study.findings.compared import COMMAND, KEPT
from pipeline.study.findings.source import Measured, NoResults, Source
from pipeline.study.findings.table import Grid

# Part of the name of a criterion that searches lazily; without it, it is that of the full search.
LAZY = ", lazy True"


def read(outputs: Path) -> Measured:
    """Return a table with a row a text and budget. Raises NoResults if either search is not among the kept tables."""
    path = KEPT / SEARCHES
    costs = pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=[*SEARCH, "removed"])
    costs = costs[costs["removed"].notna()].astype(dict.fromkeys([*SEARCH, "commit", "started"], str))
    lazy = costs[costs["criterion"].str.contains(LAZY, regex=False)]
    lazy = lazy.assign(criterion=lazy["criterion"].str.replace(LAZY, "", regex=False))
    both = costs.merge(lazy, on=SEARCH, suffixes=("", "_lazy"))
    if both.empty:
        raise NoResults(f"{path} has no lazy search beside a full one; run experiment=fig28 with each")
    both = both.assign(size=both["sparsity"].astype(float)).sort_values([*SEARCH[:-1], "size"])
    runs = pd.concat([both["commit"], both["commit_lazy"]]).str[:7]
    stages = {name: int(both[[name, f"{name}_lazy"]].min().min()) for name in STAGES[:1]}
    last = max(both["started"].max(), both["started_lazy"].max())
    return Measured({"table": table(both)}, stages, " and ".join(dict.fromkeys(runs)), last[:10])


def table(both: pd.DataFrame) -> Grid:
    """Return how many units differ, and what both searches reached and sent, of full and lazy searches side by side."""
    names = {text: f"{number}" for number, text in enumerate(dict.fromkeys(both["text"] + both["draw"]), start=1)}
    lines = []
    for row in both.itertuples():
        differ = len(set(row.removed.split(", ")) - set(row.removed_lazy.split(", ")))
        reached = [f"{value:.4f}" for value in (row.reached, row.reached_lazy)]
        more = f"{row.reached_lazy / row.reached - 1:+.0%}".replace("%", " %")
        sent = [f"{value:,.0f}" for value in (row.forward_tokens, row.forward_tokens_lazy)]
        lines.append([names[row.text + row.draw], row.sparsity, str(differ), *reached, more, *sent])
    columns = ["text", "budget", "units that differ", "KL, full", "KL, lazy", "more", "tokens, full", "tokens, lazy"]
    return Grid(columns, lines)


SOURCES = {"lazy": Source(COMMAND, read)}
