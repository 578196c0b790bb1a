"""Panels that show a sweep in W&B, by section. Each names the keys that it draws, as runs log them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import wandb_workspaces.reports.v2 as wr

from pipeline.config.schema import flatten
from pipeline.measure.columns import TAKEN
from pipeline.track.keys import KINDS, KL, REMOVED, kind_key, mean_key
from pipeline.track.readback import RunRecord

SPACES = {"cos_h": "cosine in h", "cos_z": "cosine in z", "cos_p": "cosine in p", "kl": "KL"}
SUBLAYERS = ("attention", "mlp")
PROTOCOLS = {"teacher_forced": "teacher-forced", "free_running": "free-running"}
TABLES = {
    "generations": "generated texts",
    "scores": "scores of every task",
    "comparison with dense": "every task compared with dense",
    "fidelity to dense": "how the answers to every task differ from dense",
}
# Largest number of runs in one panel; W&B's default is 10.
MOST_RUNS = 200
_KL = "kl"
# Width of a report's grid, and the heights of panels by their number in a row.
_WIDTH = 24
_HEIGHTS = {1: 10, 2: 12, 3: 7, 4: 6}

Panel = wr.ScatterPlot | wr.LinePlot | wr.ParallelCoordinatesPlot | wr.MediaBrowser | wr.WeavePanelSummaryTable


@dataclass(frozen=True)
class Section:
    """Panels that belong together, in ``columns``; ``figures`` is True if they are pictures."""

    title: str
    text: str
    panels: list[Panel]
    columns: int = 3
    figures: bool = False

    def __post_init__(self) -> None:
        for panel in self.panels:
            panel.layout = wr.Layout(w=_WIDTH // self.columns, h=_HEIGHTS[self.columns])


def sections(logged: Collection[str] | None, pruners: Iterable[str], figures: Sequence[str]) -> list[Section]:
    """Return all non-empty sections, without panels of which a key is not ``logged`` (see `keys_of_run`).

    If ``logged`` is None, all panels stay. ``pruners`` are those whose curves over sparsity were logged at the sweep's
    end, ``figures`` the names of the pictures.
    """
    measures = SPACES | _further(logged or ())
    made = [
        Section(
            "Scores over sparsity",
            "Mean scores over all tasks of a kind, against the fraction of decoder-block parameters removed. Each "
            "point is one job, coloured by pruner; lines are means over the jobs of a pruner.",
            [*_points(REMOVED, "fraction removed"), *_lines(list(pruners))],
        ),
        Section(
            "How scores depend on the deviation",
            "Scores against the free-running KL(dense‖pruned) at the final state, and generation against multiple "
            "choice.",
            [*_points(KL, "KL", kinds=("generative", "multiple_choice", "retrieval")), _both_ways()],
        ),
        Section("Everything at once", "Each line is one job.", [_parallel(logged)], columns=1),
        Section(
            "Layer by layer",
            "One sublayer at a time is replaced by its pruned form on the dense model's own inputs; the residual "
            "stream after it is compared in h, z and p.",
            [*_over_layers(measures), _line("fraction removed by layer", "layer", [f"layer/{REMOVED}"])],
            columns=4,
        ),
        Section(
            "Step by step",
            "Final states while a prompt is continued: the pruned model reads the dense model's tokens "
            "(teacher-forced) or its own (free-running).",
            _over_steps(measures),
            columns=4,
        ),
        Section("Texts and tables", "", [wr.WeavePanelSummaryTable(table_name=name) for name in TABLES], columns=1),
        Section("Figures", "", [_picture(name) for name in figures], columns=2, figures=True),
    ]
    kept = [
        replace(
            section,
            panels=[panel for panel in section.panels if logged is None or keys_of_panel(panel) <= set(logged)],
        )
        for section in made
    ]
    return [section for section in kept if section.panels]


def _further(logged: Collection[str]) -> dict[str, str]:
    """Return the further measures that runs have logged by layer or by step, and their names for readers."""
    places = [f"layer/{sublayer}" for sublayer in SUBLAYERS] + [f"step/{protocol}" for protocol in PROTOCOLS]
    found = {
        key.rpartition("/")[2] for key in logged if key.rpartition("/")[0] in {f"history:{each}" for each in places}
    }
    return {name: name.replace("_", " ") for name in sorted(found - TAKEN)}


def _line(title: str, x: str, y: Sequence[str], log: bool = False, title_x: str | None = None) -> Panel:
    return wr.LinePlot(
        title=title,
        x=x,
        y=list(y),
        log_y=log or None,
        title_x=title_x,
        max_runs_to_show=MOST_RUNS,
        smoothing_type="none",
    )


def _points(x: str, name: str, kinds: Iterable[str] = KINDS) -> list[Panel]:
    return [
        wr.ScatterPlot(
            title=f"{KINDS[kind]} against {name}",
            x=wr.SummaryMetric(x),
            y=wr.SummaryMetric(mean_key(kind)),
            log_y=True if kind == "perplexity" else None,
            legend_template="${run:displayName}",
        )
        for kind in kinds
    ]


def _lines(pruners: Sequence[str]) -> list[Panel]:
    return [
        _line(
            f"{name} over sparsity, one line per pruner",
            REMOVED,
            [curve_key(pruner, kind) for pruner in pruners],
            log=kind == "perplexity",
            title_x="fraction removed",
        )
        for kind, name in KINDS.items()
        if pruners
    ]


def curve_key(pruner: str, kind: str) -> str:
    """Return the key of a pruner's mean scores over the share removed."""
    return f"over_sparsity/{pruner}/{kind_key(kind)}"


def _both_ways() -> Panel:
    return wr.ScatterPlot(
        title="generation against multiple choice",
        x=wr.SummaryMetric(mean_key("multiple_choice")),
        y=wr.SummaryMetric(mean_key("generative")),
        legend_template="${run:displayName}",
    )


def _parallel(logged: Collection[str] | None) -> Panel:
    columns: dict[str, wr.Config | wr.SummaryMetric] = {
        "pruner": _choice("pruner", logged),
        "fraction removed": wr.SummaryMetric(REMOVED),
        "calibration": _choice("calibration", logged),
        "seed": wr.Config("seed"),
        **{KINDS[kind]: wr.SummaryMetric(mean_key(kind)) for kind in ("generative", "multiple_choice", "retrieval")},
        "KL": wr.SummaryMetric(KL),
    }
    return wr.ParallelCoordinatesPlot(
        title="from pruner to score",
        columns=[
            wr.ParallelCoordinatesPlotColumn(metric=metric, display_name=name)
            for name, metric in columns.items()
            if logged is None or _key(metric) in logged
        ],
    )


def _choice(group: str, logged: Collection[str] | None) -> wr.Config:
    """Return the choice of a group: its name, or where W&B's agents choose it, the sweep's own value."""
    own = logged is not None and f"config:{group}.name" not in logged
    return wr.Config(group if own else f"{group}.name")


def _over_layers(measures: Mapping[str, str]) -> list[Panel]:
    return [
        _line(f"{name} by layer, {sublayer}", "layer", [f"layer/{sublayer}/{column}"], log=column == _KL)
        for sublayer in SUBLAYERS
        for column, name in measures.items()
    ]


def _over_steps(measures: Mapping[str, str]) -> list[Panel]:
    return [
        _line(f"{name} by step, {words}", "step", [f"step/{protocol}/{column}"], log=column == _KL)
        for protocol, words in PROTOCOLS.items()
        for column, name in measures.items()
    ]


def _picture(name: str) -> Panel:
    return wr.MediaBrowser(title=name.rpartition("/")[2], media_keys=[name], num_columns=1)


def keys_of_panel(panel: Panel) -> set[str]:
    """Return the keys that a panel draws, as in `keys_of_run`."""
    if isinstance(panel, wr.LinePlot):
        return {f"history:{_name(metric)}" for metric in [panel.x, *panel.y]}
    if isinstance(panel, wr.ScatterPlot):
        return {_key(panel.x), _key(panel.y)}
    if isinstance(panel, wr.ParallelCoordinatesPlot):
        return {_key(column.metric) for column in panel.columns}
    if isinstance(panel, wr.MediaBrowser):
        return {f"media:{key}" for key in panel.media_keys}
    return {f"media:{panel.table_name}"}


def _key(metric: object) -> str:
    return f"{'config' if isinstance(metric, wr.Config) else 'summary'}:{_name(metric)}"


def _name(metric: object) -> str:
    return str(getattr(metric, "name", metric))


def keys_of_run(run: RunRecord) -> set[str]:
    """Return the keys that a run has logged.

    Each follows ``config:``, ``summary:``, ``history:`` or, for pictures and tables, ``media:``.
    """
    media = {key.removesuffix("._type") for row in run.history for key in row if key.endswith("._type")}
    return (
        {f"config:{key}" for key in flatten(run.config)}
        | {f"summary:{key}" for key in run.summary}
        | {f"history:{key}" for row in run.history for key in row}
        | {f"media:{key}" for key in media}
    )
