"""Workspace and report of a sweep in W&B, and their JSON. Building them sends no request; publishing does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from pipeline.track.keys import FIGURES, REMOVED, mean_key
from pipeline.track.panels import MOST_RUNS, Section, sections

TITLE_LENGTH = 128
# Number of sections of a workspace that are open from the start.
OPEN = 3


@dataclass(frozen=True)
class Shown:
    """Runs of the W&B group ``sweep`` to show, as far as this machine knows them.

    ``runs`` maps a run's id to its pruner, ``colours`` a pruner to its colour. ``logged`` are the keys of these runs
    (see `panels.keys_of_run`), or None if none could be read. ``curves`` are the pruners with curves over sparsity,
    ``figures`` the names of pictures, which are in a run of their own if the sweep is ``closed``. ``about`` is a line
    about the settings.
    """

    sweep: str
    project: str
    runs: Mapping[str, str]
    colours: Mapping[str, str]
    logged: Collection[str] | None
    curves: Sequence[str] = ()
    figures: Sequence[str] = ()
    closed: bool = True
    about: str = ""

    @property
    def sections(self) -> list[Section]:
        return sections(self.logged, self.curves, self.figures)

    @property
    def title(self) -> str:
        return f"Pruning: {self.sweep}"[:TITLE_LENGTH]


def workspace(shown: Shown, entity: str = "") -> ws.Workspace:
    """Return the sections as a saved view of the project that shows only this sweep's runs."""
    return ws.Workspace(
        entity=entity,
        project=shown.project,
        name=shown.title,
        auto_generate_panels=False,
        sections=[
            ws.Section(
                name=section.title,
                panels=list(section.panels),
                is_open=place < OPEN,
                layout_settings=ws.SectionLayoutSettings(
                    columns=section.columns, rows=min(3, -(-len(section.panels) // section.columns))
                ),
            )
            for place, section in enumerate(shown.sections)
        ],
        settings=ws.WorkspaceSettings(max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=[expr.Metric("Group") == shown.sweep],
            order=[expr.Ordering(expr.Metric("JobType"), ascending=True)],
            run_settings={run: ws.RunSettings(color=colour) for run, colour in _colours(shown).items()},
            pinned_columns=["run:displayName", f"summary:{REMOVED}", f"summary:{mean_key('generative')}"],
        ),
    )


def report(shown: Shown, entity: str = "") -> wr.Report:
    """Return the sections as a page with text. Run sets name no project without an ``entity``: that needs a request."""
    blocks: list[Any] = [
        wr.P("Does pruning work for this model and these tasks, and if not, why not?"),
        *([wr.P(f"Settings: {shown.about}")] if shown.about else []),
        wr.TableOfContents(),
    ]
    for section in shown.sections:
        blocks.append(wr.H2(section.title))
        if section.text:
            blocks.append(wr.P(section.text))
        blocks.append(wr.PanelGrid(runsets=[_runset(shown, section, entity)], panels=list(section.panels)))
    return wr.Report(project=shown.project, entity=entity, title=shown.title, width="fluid", blocks=blocks)


def _runset(shown: Shown, section: Section, entity: str) -> wr.Runset:
    kind, figures = expr.Metric("JobType"), section.figures and shown.closed
    of_sweep = expr.Metric("Group") == shown.sweep
    return wr.Runset(
        name="figures" if figures else "jobs",
        filters=[of_sweep, kind == FIGURES if figures else kind != FIGURES],
        run_settings={} if figures else {run: wr.RunSettings(color=c) for run, c in _colours(shown).items()},
        entity=entity,
        project=shown.project if entity else "",
    )


def _colours(shown: Shown) -> dict[str, str]:
    return {run: shown.colours[pruner] for run, pruner in shown.runs.items() if pruner in shown.colours}


def specification(page: ws.Workspace | wr.Report) -> str:
    """Return the JSON that W&B stores for a page."""
    return page._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2)
