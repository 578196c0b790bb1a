"""A sweep's pages in W&B: what they name is what runs log, and nothing is sent unless it is to be published."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb_workspaces.reports.v2.interface as wr
import wandb_workspaces.reports.v2.internal as report_schema
import wandb_workspaces.workspaces.interface as ws
import wandb_workspaces.workspaces.internal as workspace_schema
from fake_wandb import environment, forget_account, serving, use
from places import ROOT
from tracked_sweep import SWEEP

from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord
from pipeline.track import dashboard, panels, read_run
from pipeline.track.over_sparsity import curves
from pipeline.track.pages import Shown, report, specification, workspace


@pytest.fixture(scope="module")
def outputs(outputs_of_sweep: Path) -> Path:
    return outputs_of_sweep


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_account(monkeypatch, tmp_path / "home")


@pytest.fixture(scope="module")
def pages(outputs: Path) -> dict[str, dict[str, Any]]:
    """The JSON of both pages, as the command writes it without a key. Nothing is asked of the network for it."""
    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("no network here")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        assert dashboard.main(["--outputs", str(outputs)]) == 0
    assert asked == []
    folder = outputs / "dashboard"
    return {kind: json.loads((folder / f"{SWEEP}-{kind}.json").read_text()) for kind in ("workspace", "report")}


def named(value: Any) -> Iterator[str]:
    """Every key that a page's JSON names, in the form of `panels.keys_of_run`."""
    if isinstance(value, list):
        for item in value:
            yield from named(item)
    if not isinstance(value, dict):
        return
    kind, config = value.get("viewType"), value.get("config") or {}
    if kind == "Run History Line Plot":
        yield from (f"history:{key}" for key in [config["xAxis"], *config["metrics"]])
    elif kind == "Scatter Plot":
        yield from (config["xAxis"], config["yAxis"])
    elif kind == "Parallel Coordinates Plot":
        yield from (column["accessor"].replace(".value", "") for column in config["columns"])
    elif kind == "Media Browser":
        yield from (f"media:{key}" for key in config["mediaKeys"])
    elif kind == "Weave":
        yield f"media:{config['panel2Config']['exp']['fromOp']['inputs']['key']['val']}"
    else:
        assert kind is None, f"a panel that this test does not read: {kind}"
        for item in value.values():
            yield from named(item)


def logged(outputs: Path) -> set[str]:
    return set().union(*(panels.keys_of_run(read_run(path)) for path in (outputs / "wandb").glob("offline-run-*")))


def test_every_key_of_every_panel_is_logged_by_real_runs(outputs: Path) -> None:
    """Also of the panels that are left out where a sweep lacks their keys. No retrieval is done here."""
    everything = Shown(SWEEP, "mine", {}, {}, None, ("shortgpt", "wanda"), ("figures/fig01_score_vs_sparsity",))
    retrieval = {"summary:retrieval/mean", "history:over_sparsity/shortgpt/retrieval"}
    retrieval |= {key.replace("shortgpt", "wanda") for key in retrieval}
    there = logged(outputs)
    for page in (workspace(everything), report(everything)):
        keys = set(named(json.loads(specification(page))))
        assert len(keys) > 30
        assert keys - there == retrieval


def test_the_pages_of_a_sweep_show_all_that_it_has(pages: dict[str, dict[str, Any]]) -> None:
    shown = panels.sections(None, ("shortgpt", "wanda"), ("figures/fig01_score_vs_sparsity",))
    titles = [section.title for section in shown]
    sections = pages["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == titles
    blocks = pages["report"]["spec"]["blocks"]
    assert [block["children"][0]["text"] for block in blocks if block["type"] == "heading"] == titles
    keys = set(named(sections))
    assert keys == set(named(blocks))
    assert {
        "summary:removed",
        "summary:free_running/kl",
        "config:pruner.name",
        "config:calibration.name",
        "config:seed",
    } <= keys
    assert {"history:over_sparsity/shortgpt/generation", "media:generations", "media:comparison with dense"} <= keys
    assert "summary:retrieval/mean" not in keys


def test_pages_show_the_runs_of_their_sweep_in_their_pruners_colours(
    pages: dict[str, dict[str, Any]], outputs: Path
) -> None:
    (runset,) = pages["workspace"]["spec"]["section"]["runSets"]
    grids = [block["metadata"] for block in pages["report"]["spec"]["blocks"] if block["type"] == "panel-grid"]
    conditions = [
        [(item["key"]["name"], item["op"], item["value"]) for item in found["filters"]["filters"]]
        for found in [runset, *(grid["runSets"][0] for grid in grids)]
    ]
    group = ("group", "=", SWEEP)
    assert conditions[0] == [group]
    assert conditions[1] == [group, ("jobType", "!=", "figures")]
    assert conditions[-1] == [group, ("jobType", "=", "figures")]
    (sweep,) = dashboard.sweeps(outputs)
    colours = pages["workspace"]["spec"]["section"]["customRunColors"]
    assert set(colours) == {job.wandb["id"] for job in sweep.jobs}
    assert len(set(colours.values())) == 3
    assert grids[0]["customRunColors"] == colours
    assert all("project" not in grid["runSets"][0] for grid in grids)


def without_layout(value: Any) -> Any:
    """Without the places of panels, which the library forgets for tables."""
    if isinstance(value, list):
        return [without_layout(item) for item in value]
    if isinstance(value, dict):
        return {key: without_layout(item) for key, item in value.items() if key != "layout"}
    return value


def test_the_library_reads_its_pages_back(pages: dict[str, dict[str, Any]]) -> None:
    view = workspace_schema.View.model_validate(pages["workspace"])
    again = ws.Workspace._from_model(view)
    panel_bank = json.loads(specification(again))["spec"]["section"]["panelBankConfig"]
    assert without_layout(panel_bank) == without_layout(pages["workspace"]["spec"]["section"]["panelBankConfig"])
    page = report_schema.ReportViewspec.model_validate(pages["report"])
    read = wr.Report._from_model(page)
    unknown = (wr.UnknownBlock, wr.UnknownPanel)
    grids = [block for block in read.blocks if isinstance(block, wr.PanelGrid)]
    assert not any(isinstance(item, unknown) for item in [*read.blocks, *(p for grid in grids for p in grid.panels)])
    assert set(named(json.loads(specification(read)))) == set(named(pages["report"]))


def test_curves_over_sparsity_begin_with_dense(outputs: Path) -> None:
    store = Store(outputs)
    (sweep,) = dashboard.sweeps(outputs)
    found = curves(sweep.jobs, store)
    assert list(found) == ["shortgpt", "wanda"]
    scores = pd.read_parquet(store.tables / "scores.parquet").query("main")
    for pruner, frame in found.items():
        assert frame["removed"].tolist() == pytest.approx([0.0, 0.5], abs=0.01)
        for kind in ("generative", "multiple_choice"):
            of_kind = scores[scores["kind"] == kind].groupby("pruner")["value"].mean()
            assert frame[kind].tolist() == pytest.approx([of_kind["dense"], of_kind[pruner]])


# wandb reads the environment once a process.
TWICE_AND_DENIED = """
import sys
from pathlib import Path
from pipeline.track import dashboard
words, denied = ["--outputs", sys.argv[1]], Path(sys.argv[2])
# Reading runs takes long, and is the same each time.
(sweep,) = dashboard.sweeps(Path(sys.argv[1]))
facts = dashboard.shown(sweep, Path(sys.argv[1]))
dashboard.shown = lambda *_: facts
print(dashboard.main(words), dashboard.main(words))
denied.touch()
print(dashboard.main(words))
"""


def test_pages_are_published_once_and_then_changed(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = tmp_path / "denied"
    with serving() as server:
        use(monkeypatch, server)
        answer = server.answer
        refusal = {"errors": [{"message": "permission denied"}]}
        monkeypatch.setattr(server, "answer", lambda *words: refusal if denied.exists() else answer(*words))
        words = [sys.executable, "-c", TWICE_AND_DENIED, str(outputs), str(denied)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, env=environment())
    said = done.stdout.splitlines()
    assert [line for line in said if line[0].isdigit() and "runs" not in line] == ["0 0", "1"], done.stderr
    assert sum(line.startswith(f"workspace  {server.url}/team/mine?nw=") for line in said) == 2
    assert sum(line.startswith(f"report     {server.url}/team/mine/reports/") for line in said) == 2
    assert said.count("3 of 3 runs exist only on this disk: `make sync` uploads them") == 3
    assert [(view["type"], view.get("id")) for view in server.views] == [
        ("runs", None),
        ("project-view", None),
        ("runs", "v1"),
        ("project-view", "v2"),
    ]
    assert {run["project"]["name"] for run in _runsets(server.views[0])} == {"mine"}
    assert "not published: " in done.stderr
    assert "permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def _runsets(view: dict[str, Any]) -> list[dict[str, Any]]:
    blocks = json.loads(view["spec"])["blocks"]
    return [block["metadata"]["runSets"][0] for block in blocks if block["type"] == "panel-grid"]


def test_a_sweep_that_is_not_there(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboard.main(["--outputs", str(outputs), "--sweep", "20260101"]) == 2
    assert f"no sweep is named 20260101; did you mean {SWEEP}?" in capsys.readouterr().err
    assert dashboard.main(["--outputs", str(tmp_path)]) == 2
    assert "run one with wandb.mode=auto or offline" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_jobs_of_an_agents_sweep_belong_together(tmp_path: Path) -> None:
    """Each is a command of its own; their W&B group is what they have in common."""
    for place, group in enumerate(["sweep123", "sweep123", None]):
        record = JobRecord(f"job{place}", "", "", "random", "wanda", "0.5", finished=f"2026-01-0{place + 1}")
        record.wandb = {"id": f"run{place}"} | ({"group": group} if group else {})
        folder = tmp_path / "runs" / f"command-{place}"
        folder.mkdir(parents=True)
        record.write(folder / "outcome.json")
    assert [(sweep.name, len(sweep.jobs)) for sweep in dashboard.sweeps(tmp_path)] == [
        ("sweep123", 2),
        ("command-2", 1),
    ]
