"""The table of measured numbers, the pages that show it, and its reading from a demo of a tiny model."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
from conftest import TINY
from fault_run import Findings
from hydra import compose, initialize_config_dir

from pipeline.config.choices import CONF
from pipeline.run.compose import resolve
from pipeline.run.job import run_job
from pipeline.store.artifacts import Store
from pipeline.study.findings import beams, compared, demo, demoted, faults, formulas, kept, speed
from pipeline.study.findings.__main__ import SOURCES, main
from pipeline.study.findings.finished_jobs import default_conditions, jobs_of
from pipeline.study.findings.pages import UnknownFinding, explanation_from, origin, pages, render
from pipeline.study.findings.source import NoResults
from pipeline.study.findings.table import ROOT, Finding, Grid, read_findings, write_findings
from pipeline.study.findings.versions import versions_of_code
from pipeline.tables.write import collect

FINDING = Finding("make x", "abc1234", "2026-01-02", {"evaluation": 1}, {"n": "7", "all": Grid(["a"], [["1"]])})
REMEDY = "python -m pipeline.study.findings --pages"


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_pages_show_what_the_table_holds(path):
    text = path.read_text(encoding="utf-8")
    assert render(text, read_findings(), versions_of_code(), explanation_from(path)) == text, f"run {REMEDY}"
    # Markdown takes a line that begins with a comment for HTML, which ends the paragraph.
    assert re.findall(r"^\s*(?:- )?<!-- finding: [\w.]+ -->[^\n]", text, re.MULTILINE) == []


def test_the_page_of_findings_says_where_each_comes_from():
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- finding: (\w+) -->", page)) == set(read_findings())


def test_commands_of_the_table_are_those_that_measure():
    findings = read_findings()
    assert {name: findings[name].command for name in SOURCES} == {name: one.command for name, one in SOURCES.items()}


@pytest.mark.parametrize(("unit", "text"), [place for place in compared.RECOMMENDED if place[0] != "weight"])
def test_criteria_are_compared_with_the_one_that_keeps_the_most(unit, text):
    """Of those that were run in all cells; its own lazy search aside."""
    (table,) = [own for name, own in read_findings()["compared"].values.items() if name == f"{unit}_{text}"]
    column = {name: at for at, name in enumerate(table.columns)}
    reference = compared.RECOMMENDED[unit, text][0]
    (cells,) = [row[column["cells"]] for row in table.rows if row[0] == reference]
    others = [row[3:] for row in table.rows if row[column["cells"]] == cells and not row[0].startswith(reference)]
    more = [own[1] for own in others if own[1].startswith("+") and not own[1].startswith("+0.00")]
    assert column[f"minus `{reference}`"] == 4 and not more


def test_blocks_are_rendered_in_a_line_and_as_paragraphs():
    page = "It is <!-- finding: x.n -->?<!-- /finding -->.\n\n<!-- finding: x.all -->\n<!-- /finding -->\n"
    rendered = render(page, {"x": FINDING}, {"evaluation": 1}, "why")
    assert "It is <!-- finding: x.n -->7<!-- /finding -->." in rendered
    assert "-->\n\n| a |\n| --- |\n| 1 |\n\n<!--" in rendered
    assert render(rendered, {"x": FINDING}, {"evaluation": 1}, "why") == rendered


def test_numbers_older_than_the_code_have_a_dagger():
    page = "It is <!-- finding: x.n -->?<!-- /finding -->.\n\n<!-- finding: x.all -->\n<!-- /finding -->\n"
    rendered = render(page, {"x": FINDING}, {"evaluation": 2}, "why")
    assert "-->7[†](why)<!--" in rendered
    assert "| 1 |\n\n† [Older than the code](why)\n\n<!--" in rendered


def test_the_list_of_findings_begins_with_those_older_than_the_code():
    page = "# A, b\n\n<!-- findings -->?<!-- /findings -->\n\n## The c's d\n<!-- finding: y --><!-- /finding -->\n"
    rendered = render(page, {"x": FINDING, "y": replace(FINDING, stages={"decision": 1})}, {"evaluation": 1}, "why")
    rows = [line for line in rendered.splitlines() if line.startswith("|")][2:]
    assert rows == [
        "| [y](#the-cs-d) † | `abc1234`, 2026-01-02 | `decision` 1 → gone |",
        "| x | `abc1234`, 2026-01-02 |  |",
    ]


def test_the_dagger_leads_to_the_page_of_findings():
    links = [
        explanation_from(ROOT / path).partition("#")[0] for path in ("README.md", "docs/a/b.md", "docs/findings.md")
    ]
    assert links == ["docs/findings.md", "../findings.md", ""]


@pytest.mark.parametrize("name", ["y", "y.n", "x.other"])
def test_a_block_without_a_finding_is_named(name):
    with pytest.raises(UnknownFinding, match=re.escape(name)):
        render(f"<!-- finding: {name} --><!-- /finding -->", {"x": FINDING}, {}, "why")


def test_a_note_says_which_artifacts_have_changed_since():
    assert "Older" not in origin(FINDING, {"evaluation": 1, "decision": 9})
    assert "**Older than the code**: versions of artifacts since then: `evaluation` 1 → 3." in origin(
        FINDING, {"evaluation": 3}
    )
    assert "`evaluation` 1 → gone" in origin(FINDING, {})
    changes = origin(replace(FINDING, commit="abc1234 with changes"), {"evaluation": 1})
    assert "`abc1234` with changes that were not committed" in changes


def test_the_table_is_read_as_it_was_written(tmp_path):
    write_findings({"x": FINDING}, tmp_path / "findings.json")
    assert read_findings(tmp_path / "findings.json") == {"x": FINDING}


def test_an_unknown_finding_is_refused_with_the_nearest(capsys):
    assert main(["demoo"]) == 2
    assert "did you mean demo?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Store:
    """The demo's four jobs on a tiny model."""
    outputs = tmp_path_factory.mktemp("findings") / "outputs"
    own = ["stages=[prune,evaluate,capture,measure]", "task.families=[copying]", "task.limit=2"]
    own += ["capture.protocols=[layer,teacher_forced,free_running]"]
    base = [word for word in TINY if not word.startswith(("task.", "calibration."))]
    for number, (pruner, sparsity) in enumerate(demo.WANTED):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            overrides = [*base, *own, f"pruner={pruner}", f"sparsity={sparsity}", f"outputs={outputs}"]
            settings = resolve(compose("config", overrides=overrides))
        assert run_job(settings, "demo", outputs / "runs" / "demo" / str(number)).error is None
    return Store(outputs)


BOUNDS = {"": 0.5, "_low": 0.35, "_high": 0.65}
TINY_DEMO = {"model.name": "random-llama", "task.families": ["copying"]}


@pytest.mark.rotated("findings")
def test_the_demo_is_read_from_its_jobs(sweep):
    found = demo.read_demo(sweep, TINY_DEMO, demo.scores, ["decision", "evaluation", "comparison"])
    code = versions_of_code()
    assert found.stages == {name: code[name] for name in ("decision", "evaluation", "comparison")}
    table = found.values["scores"]
    assert isinstance(table, Grid)
    assert [row[:2] for row in table.rows] == [["dense", "0"], *(list(pair) for pair in demo.WANTED)]
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert table.rows[1][2] == "25.0 %"


def test_protocols_and_theorems_are_read_from_the_jobs_of_the_demo(sweep):
    lines = demo.read_demo(sweep, TINY_DEMO, demo.protocols, ["measures"]).values["teacher_forced"]
    assert isinstance(lines, Grid)
    assert len(lines.rows) == len(demo.WANTED)
    collect(sweep)
    least = demo.read_demo(sweep, TINY_DEMO, demo.theorems, ["measures"]).values
    assert all(-1 <= float(str(least[name])) <= 1 for name in ("second", "third"))


def test_formulas_of_the_scripts_give_our_columns_on_the_states_of_the_demo(sweep):
    found = demo.read_demo(sweep, TINY_DEMO, formulas.values, ["measures"]).values
    assert set(found) == {"shortgpt", "wanda"}
    for table in found.values():
        numbers = {row[2].strip("`"): (float(row[1]), float(row[3])) for row in table.rows if "along" not in row[2]}
        assert len(numbers) == 8
        for scripts, ours in numbers.values():
            assert scripts == pytest.approx(ours, abs=1e-4)


def test_a_folder_without_the_jobs_of_the_demo_says_how_to_get_them(sweep):
    assert "model.name" in default_conditions()
    with pytest.raises(NoResults, match="run `make demo` first"):
        jobs_of(sweep, default_conditions(), demo.WANTED, demo.COMMAND)
    with pytest.raises(NoResults, match="run `python -m pipeline.main -m experiment=fig30` first"):
        demoted.read(sweep.root)
    with pytest.raises(NoResults, match="task.samples=5"):
        beams.read(sweep.root)
    with pytest.raises(NoResults, match="pruner=sparsegpt,wanda,magnitude,random_weights,awq,rtn sparsity=0.5"):
        SOURCES["weights"].read(sweep.root)


def test_demoted_answers_are_told_by_pruner():
    counts = {"dense_right": 300.0, "lost": 40.0, "ranked": 40.0, "twins": 0.0}
    shares = {f"{name}{end}": value for name in ("high", "beyond") for end, value in BOUNDS.items()}
    own = {"pruner": "wanda", "sparsity": "0.5"} | counts | shares
    found = demoted.table(pd.DataFrame([own, own | {"sparsity": "0.2"}]))
    assert found.rows == [["wanda", "0.5", "40 of 300", "50 % [35, 65]", "50 % [35, 65]", ""]]


def test_what_single_settings_keep_is_told_by_kind_and_family():
    keys = [(kind, task) for kind in ("generative", "multiple_choice") for task in ("mean", "plurals", "counting")]
    shares = pd.DataFrame(
        [
            {"kind": kind, "task": task, "retained": 0.1 * n, "retained_low": 0.1 * n - 0.05, "retained_high": 0.1 * n}
            for n, (kind, task) in enumerate(keys, start=1)
        ]
    )
    found = kept.weights({("wanda", "0.5"): shares, ("rtn", "0"): shares})["table"]
    own = ["10 % [5, 10]", "40 % [35, 40]"]
    assert found.rows == [["wanda", "0.5", *own], ["rtn", "4 bits", *own]]
    told = kept.families({("attn_drop", "8"): shares})
    assert told == {"plurals": "20 % [15, 20]", "counting": "60 % [55, 60]"}


def test_what_the_benchmarks_print_is_read():
    found = speed.numbers_of("positions 200.000\nmeasure_vs_gemm 1.944\nsome words here\n")
    assert found == {"positions": 200.0, "measure_vs_gemm": 1.944}
    more = {"measure_changed_vs_gemm": 1.5, "measure_vs_loop": 24.6, "measure_peak_gib": 0.131}
    assert speed.again({"fresh_seconds": 12.6, "again_seconds": 2.1}) == {"fresh": "13 s", "again": "2 s"}
    assert speed.measuring(found | more) == {"dropped": "1.9", "changed": "1.5", "loop": "25", "memory": "0.13 GiB"}


def test_what_came_of_faults_is_read_as_it_is_printed():
    rounds = [
        Findings("undisturbed", 2),
        Findings("kill -9", 3, compared=40, lost=["a"]),
        Findings("sweeps at once", 4),
    ]
    rounds[2].hits |= {"computed": 72, "to compute": 71}
    rounds[2].other += ["b was computed 2 times"]
    printed = "\n".join(line for found in rounds for line in found.lines())
    found = faults.counted(f"kill 1: start (sweep)\n{printed}\n1 lost or wrong, in 9 s\n")
    assert found["counts"].rows == [
        ["`kill -9`", "3", "40", "1", "0", "0", "0"],
        ["sweeps at once", "4", "0", "0", "0", "0", "1"],
    ]
    assert found["at_once"] == "72 artifacts were computed where 71 had to be"
    assert faults.counted("kill 1: start (sweep)\nTraceback\n") == {}
