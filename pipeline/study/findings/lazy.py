"""Finding on lazy search: where it parts from full greedy search, and at what cost, from the kept tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from pipeline.analysis.pooled_criteria import pooled
from pipeline.evaluate.suite import GENERATIVE
from pipeline.study.criteria.__main__ import CELLS, SEARCHES
from pipeline.study.criteria.cells import SEARCH, STAGES
from pipeline.study.findings.compared import KEPT
from pipeline.study.findings.source import Measured, NoResults, Source
from pipeline.study.findings.table import Grid, Value

# Part of the name of a criterion that searches lazily; without it, it is that of the full search.
LAZY = ", lazy True"
_DRAW = re.compile(r"draw (\d+), seed 0")
FULL = "full"


def read(outputs: Path) -> Measured:
    """Return a table with a row a text and budget, and what lazy search keeps more or less over all of them.

    Raises NoResults if either search is not among the kept tables.
    """
    path = KEPT / SEARCHES
    costs = pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=[*SEARCH, "removed"])
    costs = costs[costs["removed"].notna()].astype(dict.fromkeys([*SEARCH, "commit", "started"], str))
    lazy = costs[costs["criterion"].str.contains(LAZY, regex=False)]
    lazy = lazy.assign(criterion=lazy["criterion"].str.replace(LAZY, "", regex=False))
    both = costs.merge(lazy, on=SEARCH, suffixes=("", "_lazy"))
    if both.empty:
        raise NoResults(f"{path} has no lazy search beside a full one; run experiment=fig28 with each")
    both = both.assign(size=both["sparsity"].astype(float)).sort_values([*SEARCH[:-1], "size"])
    both = both.assign(differ=[len(_units(row.removed) - _units(row.removed_lazy)) for row in both.itertuples()])
    scores = judged(pd.read_parquet(KEPT / CELLS), both)
    more = next(row for row in pooled(scores, FULL).itertuples() if row.criterion == LAZY)
    runs = pd.concat([both["commit"], both["commit_lazy"]]).str[:7]
    stages = {name: int(both[[name, f"{name}_lazy"]].min().min()) for name in STAGES}
    last = max(both["started"].max(), both["started_lazy"].max())
    values: dict[str, Value] = {
        "table": table(both, scores),
        "parted": f"{(both['differ'] > 0).sum()} of {len(both)}",
        "less": f"{((both['differ'] > 0) & (both['reached_lazy'] < both['reached'])).sum()}",
        "kept": f"{more.difference:+.3f} [{more.low:+.3f}, {more.high:+.3f}]",
    }
    return Measured(values, stages, " and ".join(dict.fromkeys(runs)), last[:10])


def judged(cells: pd.DataFrame, both: pd.DataFrame) -> pd.DataFrame:
    """Return the items of searches that were run in both ways, with `FULL` and `LAZY` as their criteria."""
    own = cells[(cells["kind"] == GENERATIVE) & cells["solved"].astype(bool)]
    own = own.astype(dict.fromkeys(SEARCH, str))
    lazy = own["criterion"].str.contains(LAZY, regex=False)
    search = own["criterion"].str.replace(LAZY, "", regex=False)
    own = own.assign(criterion=search, way=lazy.map({True: LAZY, False: FULL})).merge(both[SEARCH], on=SEARCH)
    # Two criteria on one text are two cells.
    return own.assign(text=own["text"] + own["criterion"], criterion=own["way"])


def table(both: pd.DataFrame, scores: pd.DataFrame) -> Grid:
    """Return how many units differ, and what the full search reached, sent and kept, with what lazy search changes."""
    lines = []
    for row in both.itertuples():
        cell = {key: getattr(row, key) for key in SEARCH if key != "criterion"} | {"text": row.text + row.criterion}
        own = scores[(scores[list(cell)] == pd.Series(cell)).all(axis=1)]
        reached, sent = _more(row.reached_lazy / row.reached), _more(row.forward_tokens_lazy / row.forward_tokens)
        numbers = [str(row.differ), f"{row.reached:.4f}", reached, f"{row.forward_tokens:,.0f}", sent]
        about = [row.model, row.criterion, _name(row.text), _DRAW.sub(r"\1", row.draw), row.sparsity]
        lines.append([*about, *numbers, *_kept(own, bool(row.differ))])
    columns = ["units that differ", "KL", "KL, lazy", "tokens", "tokens, lazy", "kept", "lazy minus full"]
    return Grid(["model", "criterion", "text", "draw", "budget", *columns], lines)


def _kept(scores: pd.DataFrame, differ: bool) -> list[str]:
    """Return what the full search keeps, and how much more the lazy one does; empty where neither was judged.

    Searches that found the same units are one model, on items of any number.
    """
    if scores["criterion"].nunique() < len((FULL, LAZY)):
        return ["", ""]
    ways = {row.criterion: row for row in pooled(scores, FULL).itertuples()}
    lazy = ways[LAZY]
    if not differ:
        return [f"{ways[FULL].kept:.2f}", "the same"]
    return [f"{ways[FULL].kept:.2f}", f"{lazy.difference:+.2f} [{lazy.low:+.2f}, {lazy.high:+.2f}]"]


def _more(ratio: float) -> str:
    return f"{ratio - 1:+.0%}".replace("%", " %")


def _units(removed: str) -> set[str]:
    return set(removed.split(", "))


def _name(text: str) -> str:
    """Return the first family of a text of shots, or the text's name."""
    name, _, options = text.partition(" ")
    families = json.loads(options).get("families") if options else None
    return f"{families[0]}, …" if families else name


SOURCES = {"lazy": Source("python -m pipeline.study.findings lazy", read)}
