"""Assembles and writes the report, a single self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.analysis import theorems
from pipeline.common.files import write_bytes
from pipeline.config.figures import by_default
from pipeline.config.schema import FiguresConfig
from pipeline.plot.drawing import FigureResult, command_of, draw
from pipeline.report.answer import answer
from pipeline.report.demotion import demotion_sentence, demotion_table
from pipeline.report.examples import examples
from pipeline.report.jobs import pruned_table
from pipeline.report.pictures import headline_of, missing, pictures
from pipeline.report.provenance import provenance_of, records_of
from pipeline.report.representations import agreement_table, deviation_table, options_table, sets_table
from pipeline.report.scores import scores_table
from pipeline.report.settings import settings_of
from pipeline.report.texts import side_by_side
from pipeline.report.theory import heat_map, sentence, tracking
from pipeline.report.written_before import is_written, remember, state_of_page
from pipeline.store.artifacts import Store
from pipeline.store.records import load_records
from pipeline.tables.choice import choose
from pipeline.tables.read import Tables, load

HERE = Path(__file__).parent
SCORES_FIGURE = "fig01"  # the experiment that computes scores


def write(
    outputs: Path,
    settings: str | None = None,
    drawn: Sequence[FigureResult] | None = None,
    form: FiguresConfig | None = None,
    processes: int = 1,
) -> Path:
    """Write `outputs/report/index.html`; the same tables give the same bytes.

    Args:
        outputs: the folder that holds `tables/`.
        settings: the settings line of the jobs to show, or a part of it that no other line has; by default the
            newest job's.
        drawn: the figures to show, just drawn from the same tables; by default all figures are brought up to date.
        form: style, widths and folder of figures of the user's own; by default that of `conf/config.yaml`.
        processes: how many may draw at once.

    Raises:
        NoTables: if there are no tables.
        UnknownSettings: if no settings match, or several.
        UnknownFigure: if the form selects a figure that does not exist.
    """
    results = draw(outputs, settings=settings, form=form, processes=processes) if drawn is None else drawn
    choice, path = choose(outputs, settings), outputs / "report" / "index.html"
    state = state_of_page(outputs, choice, form or by_default(), results)
    if is_written(path, state):
        return path
    tables = load(outputs, choice)
    write_bytes(path, _render({**_findings(tables), **_figures(results, path), **_origins(tables, Store(outputs))}))
    remember(path, state)
    return path


def _figures(results: Sequence[FigureResult], path: Path) -> dict[str, object]:
    shown = pictures(results, path)
    headline = headline_of(shown)
    others = [picture for picture in shown if picture is not headline]
    return {
        "headline": headline,
        "pictures": shown,
        "story": [picture for picture in others if picture.main],
        "supplement": [picture for picture in others if not picture.main],
        "missing": missing(results),
    }


def _origins(tables: Tables, store: Store) -> dict[str, object]:
    """Collect what comes from the records of the jobs and the texts in the store."""
    records = records_of(tables, load_records(store.jobs))
    return {
        "provenance": provenance_of(tables, records, store),
        "examples": examples(tables, records, store),
    }


def _findings(tables: Tables) -> dict[str, object]:
    """Collect everything on the page that comes from the tables."""
    tracked = tracking(tables)
    return {
        "model": tables.model(),
        "answer": answer(tables),
        "scores_command": command_of(SCORES_FIGURE),
        "pruned": pruned_table(tables),
        "scores": scores_table(tables),
        "demotion": demotion_table(tables),
        "demotion_sentence": demotion_sentence(tables),
        "deviations": deviation_table(tables),
        "agreement": agreement_table(tables),
        "sets": sets_table(tables),
        "options": options_table(tables),
        "least_correlation": theorems.LEAST_CORRELATION,
        "breaks": [] if tracked.empty else theorems.breaks(tracked),
        "heat": heat_map(tracked),
        "heat_sentence": sentence(tracked),
        "prompts": side_by_side(tables),
        "settings": settings_of(tables),
    }


def _render(context: dict[str, object]) -> bytes:
    """Render the page; whatever comes from the tables is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    own = {name: Markup((HERE / name).read_text(encoding="utf-8")) for name in ("style.css", "script.js")}
    template = environment.get_template("template.html")
    return template.render(**context, style=own["style.css"], script=own["script.js"]).encode()
