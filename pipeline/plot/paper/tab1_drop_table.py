"""Scores of each retrieval, multiple-choice and generation task, and perplexity: dense and dropped (table 1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.analysis.score_means import (
    KINDS,
    MEAN,
    PERCENT,
    item_count,
    other_scales,
    shared_tasks,
    task_scores,
    with_means,
)
from pipeline.plot.base import Selection
from pipeline.plot.cell_text import plain, text_width
from pipeline.plot.score_errors import error_name, with_seeds
from pipeline.plot.table_block import GAP, Block, Column, room
from pipeline.plot.table_page import table_figure
from pipeline.plot.variant_notes import left_out_note
from pipeline.tables.read import Tables
from pipeline.tables.replicates import over_replicates
from pipeline.tables.stored import MissingData
from pipeline.tables.variants import (
    DENSE,
    VARIANT,
    Variant,
    drop_name,
    drop_notes,
    ordered,
    rows_of,
    spread,
    variants_of,
)

HEADINGS = {
    "retrieval": KINDS["retrieval"],
    "multiple_choice": KINDS["multiple_choice"],
    "generative": KINDS["generative"],
}
PERPLEXITY = "perplexity"  # a kind without percentages, whose series are texts
SHORT = {"retrieval": "retrieval", "multiple_choice": "multiple choice", "generative": "generation"}
PRUNERS = ("shortgpt", "attn_drop", "mlp_drop")
FIRST = (Variant("attn_drop", "8"), Variant("mlp_drop", "8"))
ROWS = 12
ABSENT = "–"
PAD, SPREAD = 0.02, 0.9  # inches: above and below a row; greatest width that columns are widened to
NUMBER, LONGEST = text_width("100.0", bold=True), 1.2  # inches: least and greatest width that a column needs
NAME = 1.8  # inches: the most that the names of rows take


def select(tables: Tables) -> Selection:
    """Select parameters, task scores and means (percent) per kind of task and variant; rows in the order shown."""
    tables = _with_other_suites(tables)
    scores = task_scores(tables, HEADINGS)
    dropping = [variant for variant in variants_of(scores) if variant.pruner in PRUNERS]
    if not dropping:
        raise MissingData(f"none of {', '.join(PRUNERS)} was evaluated under these settings")
    rows, left_out = _rows([variant for variant in variants_of(scores) if variant.pruner == DENSE], dropping)
    shared, dropped = shared_tasks(rows_of(scores, rows))
    parts = [with_means(shared)] if not shared.empty else []
    if not dropped.empty:
        alone = with_means(dropped)
        parts.append(alone[alone["series"] != MEAN])
    data = pd.concat([*parts, _perplexities(tables, rows)], ignore_index=True)
    own = [Variant(*pair) for pair in data[VARIANT].itertuples(index=False)]
    parameters = {variant: _parameters(tables, variant) for variant in rows}
    data = data.assign(
        label=[drop_name(variant) for variant in own],
        parameters=[parameters[variant] for variant in own],
        row=[rows.index(variant) for variant in own],
        block=data["kind"].map([*HEADINGS, PERPLEXITY].index),
        last=data["series"] == MEAN,
    ).sort_values(["block", "row", "last", "series"], kind="stable")
    columns = ["label", *VARIANT, "parameters", "kind", "series", *PERCENT, PERPLEXITY]
    title = f"Scores of {tables.model()}, dense and after dropping sublayers or blocks"
    notes = _notes(data, rows_of(scores, rows), dropped, left_out)
    return Selection(title, data[columns], (*notes, *other_scales(tables, HEADINGS)))


def _with_other_suites(tables: Tables) -> Tables:
    """Add the scores of the same variants in kinds of task that only another suite asked."""
    others = tables.other_suites
    if others.empty or tables.scores.empty:
        return tables
    return replace(tables, scores=pd.concat([tables.scores, others], ignore_index=True))


def _perplexities(tables: Tables, rows: Sequence[Variant]) -> pd.DataFrame:
    """Return the finite perplexities of these variants, one row a text; the columns without rows if there are none."""
    scores = tables.scores[(tables.scores["kind"] == PERPLEXITY) & np.isfinite(tables.scores["value"])]
    found = over_replicates(rows_of(scores, rows), ["task"], "value")[["kind", *VARIANT, "task", "value"]]
    return found.rename(columns={"task": "series", "value": PERPLEXITY})


def _rows(dense: list[Variant], dropping: list[Variant]) -> tuple[list[Variant], list[Variant]]:
    """Return the variants that there is room for, from top to bottom, and those left out."""
    first = [*dense, *(variant for variant in FIRST if variant in dropping)]
    others, left_out = spread([variant for variant in dropping if variant not in first], ROWS - len(first))
    return _downwards([*first, *others]), left_out


def _downwards(variants: Iterable[Variant]) -> list[Variant]:
    """Sort variants: dense, Drop-8A, Drop-8M, then the others."""
    return sorted(ordered(variants), key=lambda variant: (variant.pruner != DENSE, variant not in FIRST))


def _parameters(tables: Tables, variant: Variant) -> float:
    """Return the parameter count of the newest job of a variant that has one; NaN if none has."""
    jobs = tables.jobs
    known = rows_of(jobs, [variant])["parameters"].dropna() if not jobs.empty else pd.Series(dtype=float)
    return float(known.iloc[-1]) if len(known) else np.nan


def _notes(data: pd.DataFrame, scores: pd.DataFrame, dropped: pd.DataFrame, left_out: list[Variant]) -> tuple[str, ...]:
    error = error_name(with_seeds(scores, scores))
    notes = [
        f"Scores in percent, of {item_count(scores)} items per task; mean: over the tasks of a kind, ± its {error}."
    ]
    notes += drop_notes(data)
    absent = [name for kind, name in HEADINGS.items() if not (data["kind"] == kind).any()]
    notes += [f"Not evaluated: {', '.join(absent).lower()}."] if absent else []
    texts = sorted(set(data.loc[data["kind"] == PERPLEXITY, "series"]))
    notes += [f"Perplexity on {', '.join(texts)}: lower is better."] if texts else []
    if not dropped.empty:
        notes.append(f"Left out of the means, because some rows lack them: {', '.join(sorted(set(dropped['task'])))}.")
    return (*notes, *left_out_note(left_out))


def blocks(data: pd.DataFrame) -> list[Block]:
    """Draw a block with parameters and means, then the tasks of each kind; beside one another where there is room."""
    kinds = [kind for kind in HEADINGS if (data["kind"] == kind).any()]
    rows = _downwards(variants_of(data))
    blocks = [_summary(data, kinds, rows)]
    for kind in kinds:
        blocks += _kind_blocks(data[data["kind"] == kind], HEADINGS[kind], rows)
    whole = _beside(blocks)
    return _widened([whole] if sum(GAP + column.width for column in whole.columns) - GAP <= room() else blocks)


def _beside(blocks: Sequence[Block]) -> Block:
    """Join blocks of the same rows to a wide one."""
    columns, lines = list(blocks[0].columns[:1]), [list(row[:1]) for row in blocks[0].rows]
    spanners: dict[int, str] = {}
    for block in blocks:
        spanners |= {first + len(columns) - 1: text for first, text in block.spanners.items()}
        columns += block.columns[1:]
        for line, row in zip(lines, block.rows, strict=True):
            line += row[1:]
    return Block(columns, lines, spanners, PAD)


def _widened(blocks: Sequence[Block]) -> list[Block]:
    """Widen the columns of numbers evenly, to blocks of the same width, but not without limit."""
    wishes = [sum(GAP + max(column.width, SPREAD) for column in block.columns[1:]) for block in blocks]
    space = min(room() - blocks[0].columns[0].width, max(wishes))
    even = []
    for block in blocks:
        label, *numbers = block.columns
        spare = (space - sum(GAP + column.width for column in numbers)) / len(numbers)
        wider = [replace(column, width=column.width + max(0.0, spare)) for column in numbers]
        even.append(replace(block, columns=[label, *wider]))
    return even


def _summary(data: pd.DataFrame, kinds: Sequence[str], rows: Sequence[Variant]) -> Block:
    """Build the block of parameters, the mean of each kind of task with its standard error, and perplexities."""
    means = data[data["series"] == MEAN].set_index([*VARIANT, "kind"])
    parameters = data.drop_duplicates(VARIANT).set_index(VARIANT)["parameters"]
    perplexities = data[data["kind"] == PERPLEXITY].set_index([*VARIANT, "series"])[PERPLEXITY]
    texts = sorted(set(data.loc[data["kind"] == PERPLEXITY, "series"]))
    cells = []
    for row in rows:
        scores = [means.loc[(*row, kind)] if (*row, kind) in means.index else None for kind in kinds]
        lost = [perplexities.get((*row, text), np.nan) for text in texts]
        numbers = [ABSENT if np.isnan(value) else f"{value:#.3g}".rstrip(".") for value in lost]
        cells.append([drop_name(row), _millions(parameters[tuple(row)]), *map(_with_error, scores), *numbers])
    headers = ["parameters", *(SHORT[kind] for kind in kinds), *map(_spaced, texts)]
    widths = [max(text_width(line[place]) for line in cells) + 0.01 for place in range(1, len(headers) + 1)]
    needs = [max(_needs(header), width) for header, width in zip(headers, widths, strict=True)]
    spanners = {2: "Mean score"} | ({2 + len(kinds): PERPLEXITY.capitalize()} if texts else {})
    columns = _columns(rows, headers, needs)
    return _below(spanners, Block(columns, [[plain(text) for text in line] for line in cells], pad=PAD))


def _below(spanners: dict[int, str], block: Block) -> Block:
    """Return a block with headings over its columns, which are as wide together as these."""
    block, columns = replace(block, spanners=spanners), list(block.columns)
    for text, first, last in block.spans:
        own = columns[first : last + 1]
        lack = text_width(text, bold=True) - sum(GAP + column.width for column in own) + GAP
        columns[first : last + 1] = [replace(one, width=one.width + max(0.0, lack) / len(own)) for one in own]
    return replace(block, columns=columns)


def _kind_blocks(data: pd.DataFrame, heading: str, rows: Sequence[Variant]) -> list[Block]:
    """Build the blocks of the tasks of one kind, as many as their names need."""
    scores = data.set_index([*VARIANT, "series"])["score_percent"]
    blocks: list[Block] = []
    for part in _lines(sorted(set(data["series"]) - {MEAN}), room() - _label_width(rows)):
        cells = []
        for row in rows:
            values = [scores.get((*row, name), np.nan) for name in part]
            texts = [ABSENT if np.isnan(value) else f"{value:.1f}" for value in values]
            cells.append([plain(text) for text in (drop_name(row), *texts)])
        columns = _columns(rows, [_spaced(name) for name in part], [_needs(name) for name in part])
        title = f"{heading} (continued)" if blocks else heading
        blocks.append(_below({1: title}, Block(columns, cells, pad=PAD)))
    return blocks


def _lines(names: Sequence[str], room: float) -> list[list[str]]:
    """Split the columns into as few blocks as `room` inches allow, each with about the same number."""
    for count in range(1, len(names) + 1):
        lines = [list(line) for line in np.array_split(np.array(names), count)]
        if all(sum(GAP + _needs(name) for name in line) <= room for line in lines):
            break
    return lines


def _columns(rows: Sequence[Variant], headers: Sequence[str], needs: Sequence[float]) -> list[Column]:
    """Return the columns of row labels and of numbers, as narrow as possible."""
    numbers = [Column(header, need, right=True) for header, need in zip(headers, needs, strict=True)]
    return [Column("", _label_width(rows)), *numbers]


def _label_width(rows: Sequence[Variant]) -> float:
    return min(max(text_width(drop_name(row)) for row in rows) + 0.01, NAME)


def _needs(name: str) -> float:
    """Return the least width (inches) of a task's column: its widest word or a number; words over `LONGEST` break."""
    return min(max(NUMBER, *(text_width(word, bold=True) for word in _spaced(name).split())) + 0.01, LONGEST)


def _spaced(name: str) -> str:
    """Replace the underscores of a task's name with spaces, where the name may be broken."""
    return name.replace("_", " ")


def _millions(parameters: float) -> str:
    if np.isnan(parameters):
        return ABSENT
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"


def _with_error(mean: pd.Series | None) -> str:
    if mean is None:
        return ABSENT
    error = mean["stderr_percent"]
    return f"{mean['score_percent']:.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


FIGURE = table_figure(select, blocks)
