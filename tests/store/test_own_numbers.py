"""On every surface, each number is its job's own: screen, tables, figures, page and W&B."""

from __future__ import annotations

import csv
import html
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from choice import some
from job_keys import BASE, KEYS, of_one_key, run

from pipeline.analysis.score_rows import final_deviation, rows_of_jobs
from pipeline.plot.drawing import draw
from pipeline.plot.figure_csv import from_csv
from pipeline.report import write
from pipeline.results.__main__ import main as results
from pipeline.run import summary
from pipeline.store.artifacts import Store
from pipeline.store.records import JobRecord
from pipeline.study.criteria.cells import cells_of
from pipeline.tables.choice import choose
from pipeline.tables.job_columns import HOW, IDS, JOB_COLUMNS, WHO
from pipeline.tables.job_tables import JobTables
from pipeline.tables.load import load as load_all
from pipeline.tables.read import load
from pipeline.track.over_sparsity import curves

# The option is one of a pruner that reads no text, so that its calibration changes nothing.
SOME_PAIRS = some(
    "pairs of keys",
    [
        f"{first} & {second}"
        for first, second in itertools.combinations(sorted(set(KEYS) - {"draw", "calibration draw", "dtype"}), 2)
        if "pruner option" not in (first, second) or not f"{first}{second}".startswith("calibration")
    ],
    count=1,
)


class Own:
    """The numbers of jobs, read from their own artifacts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def scores(self, record: JobRecord) -> pd.DataFrame:
        parts = [self.root / record.artifacts[role] / "scores.parquet" for role in ("evaluation", "perplexity")]
        frame = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
        return frame[frame["main"]]

    def mean(self, record: JobRecord, kind: str) -> float:
        scores = self.scores(record)
        return float(scores[scores["kind"] == kind]["value"].mean())

    def final(self, record: JobRecord, column: str, protocol: str = "free_running") -> float:
        rows = pd.read_parquet(self.root / record.artifacts["measures"] / "measures.parquet")
        rows = rows[(rows["protocol"] == protocol) & (rows["temperature"] == rows["temperature"].iloc[0])]
        return float(np.mean([own[column].mean() for _, own in rows.groupby("prompt")]))


def shown_on_screen(jobs: list[JobRecord], store: Store, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    tables: list[pd.DataFrame] = []
    monkeypatch.setattr(
        summary, "show_table", lambda title, columns, rows, *_: tables.append(pd.DataFrame(rows, columns=columns))
    )
    summary.show_results([JobTables(job, store) for job in jobs], store)
    return tables[0]


def assert_every_surface_shows_the_jobs_own(jobs: list[JobRecord], root: Path, monkeypatch, capsys) -> None:
    store, own = Store(root), Own(root)
    rows = [row for row in rows_of_jobs(jobs, []) if row.first.pruner != "dense"]
    repeated = {tuple(job.job for job in row.jobs): row for row in rows}
    assert sum(map(len, repeated)) == len(jobs)
    # The screen: a row a job, or one for repetitions that says how many they are.
    table = shown_on_screen(jobs, store, monkeypatch)
    table = table[~table.iloc[:, 0].str.endswith("dense")]
    assert len(table) == len(rows)
    for row, (_, line) in zip(rows, table.iterrows(), strict=True):
        for column, value in (
            ("generation", lambda job: own.mean(job, "generative")),
            ("multiple choice", lambda job: own.mean(job, "multiple_choice")),
            ("KL", lambda job: own.final(job, "kl", "teacher_forced")),
            ("cos h", lambda job: own.final(job, "cos_h")),
        ):
            values = [value(job) for job in row.jobs]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            assert line[column] == f"{np.mean(values):.3f}{spread}", (column, row.first.settings)
        assert line.get("n", "1") == str(len(row.jobs))
    # Tables in Parquet: every row is of a job that is in them once, with all that one may group by.
    parquet = {path.stem: pd.read_parquet(path) for path in store.tables.glob("*.parquet")}
    for name, frame in parquet.items():
        assert set(WHO + HOW + IDS) <= set(frame), name
        assert frame["variant_id"].str.len().eq(16).all() and frame["settings_id"].str.len().eq(16).all()
    for job in jobs:
        mine = parquet["scores"][(parquet["scores"]["job"] == job.job) & parquet["scores"]["main"]]
        pd.testing.assert_series_equal(
            mine.set_index(["kind", "task"])["value"], own.scores(job).set_index(["kind", "task"])["value"]
        )
        measures = parquet["measures"][parquet["measures"]["job"] == job.job]
        assert final_deviation(measures)["kl"] == pytest.approx(own.final(job, "kl"), rel=1e-12)
        (line,) = parquet["jobs"][parquet["jobs"]["job"] == job.job].to_dict("records")
        assert line["seed"] == job.seed and set(JOB_COLUMNS) <= set(line)
    # Lists for scripts.
    capsys.readouterr()
    assert results(["list", "--csv", "--outputs", str(root)]) == 0
    listed = {line["job"]: line for line in csv.DictReader(capsys.readouterr().out.splitlines())}
    assert results(["list", "--json", "--outputs", str(root)]) == 0
    plain = {line["job"]: line for line in json.loads(capsys.readouterr().out)}
    for job in jobs:
        mean = own.mean(job, "generative")
        assert float(listed[job.job]["mean/generative"]) == plain[job.job]["means"]["generative"] == mean
        assert listed[job.job]["variant_id"] == job.variant_id and plain[job.job]["settings_id"] == job.settings_id
    # What a sweep logs over the share removed.
    for row in rows:
        logged = [frame for name, frame in curves(row.jobs, store).items()]
        expected = np.mean([own.mean(job, "generative") for job in row.jobs])
        assert any(np.isclose(frame["generative"], expected).any() for frame in logged)
    assert_figures_and_page_show_the_jobs_own(rows, root, own)


def assert_figures_and_page_show_the_jobs_own(rows, root: Path, own: Own) -> None:
    """Under the newest settings every variant is drawn; all other settings are named."""
    choice = choose(root)
    tables = load(root, choice)
    here = [r for r in rows if (r.first.model_id, r.first.settings_id) == (choice.model_id, choice.settings_id)]
    drawn = {result.name[:5]: result for result in draw(root, ["fig01", "fig07"])}
    points = from_csv(drawn["fig01"].paths[-1].read_bytes()).query("series == 'mean' and pruner != 'dense'")
    assert len(points) == len(here) * points["kind"].nunique()
    of = tables.jobs.set_index("job")
    steps = from_csv(drawn["fig07"].paths[-1].read_bytes())
    for row in here:
        who = of.loc[row.first.job, ["pruner", "sparsity", "options"]]
        mine = points[(points[list(who.index)] == who.to_numpy()).all(axis=1)].set_index("kind")["score_percent"]
        for kind in mine.index:
            assert mine[kind] == pytest.approx(100 * np.mean([own.mean(job, kind) for job in row.jobs]), rel=1e-6)
        assert (steps[list(who.index)] == who.to_numpy()).all(axis=1).any()
    others = {(r.first.model_id, r.first.settings_id) for r in rows} - {(choice.model_id, choice.settings_id)}
    assert len(choice.others) == len(others)
    assert all(line in drawn["fig01"].caption for line in choice.others)
    page = html.unescape(write(root, drawn=list(drawn.values())).read_text())
    assert all(line.partition(" #")[0] in page for line in choice.others)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def root(made, tmp_path) -> Path:
    """Outputs of a test of its own, whose jobs find the artifacts that those of other tests have made."""
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "store").symlink_to(made)
    return tmp_path / "outputs"


def sweep(make_settings, root: Path, ways: list[tuple[str, ...]]) -> list[JobRecord]:
    return [run(make_settings(*BASE, *words, outputs=root), root.parent) for words in ways]


@pytest.mark.usefixtures("no_pictures")
def test_repetitions_conditions_and_options_together(make_settings, root, monkeypatch, capsys):
    """Two seeds of two settings, and a third that has one."""
    ways = [
        ("pruner=rtn", f"pruner.bits={bits}", f"task.shots={shots}", f"seed={seed}")
        for bits, shots, seed in ((3, 0, 0), (3, 0, 1), (8, 0, 0), (8, 2, 0), (8, 2, 1))
    ]
    jobs = sweep(make_settings, root, ways)
    assert len({job.job for job in jobs}) == 5 and len({(j.variant_id, j.settings_id) for j in jobs}) == 3
    assert_every_surface_shows_the_jobs_own(jobs, root, monkeypatch, capsys)


@pytest.mark.usefixtures("no_pictures")
def test_draws_of_a_text_are_repetitions(make_settings, root, monkeypatch, capsys):
    jobs = sweep(make_settings, root, [of_one_key("calibration draw", place) for place in (0, 1)])
    assert len({job.job for job in jobs}) == 2 and len({job.variant_id for job in jobs}) == 1
    assert_every_surface_shows_the_jobs_own(jobs, root, monkeypatch, capsys)
    # As the comparison of criteria counts them.
    draws = cells_of(load_all(root)).groupby("draw")["score"].size()
    assert list(draws.index) == ["draw 1, seed 0", "draw 2, seed 0"] and draws.nunique() == 1


@pytest.mark.rotated("identity of two keys")
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("pair", SOME_PAIRS)
def test_any_two_keys_make_rows_of_each_jobs_own(make_settings, root, monkeypatch, capsys, pair):
    first, second = pair.split(" & ")
    places = [(0, 0), (0, 1), (1, 0)]
    if first == "pruner option" or second == "pruner option":
        words = [(*of_one_key(first, i), *of_one_key(second, j)) for i, j in places]
    else:
        words = [(KEYS[first][1][i], KEYS[second][1][j]) for i, j in places]
    jobs = sweep(make_settings, root, words)
    assert len({job.job for job in jobs}) == len(places)
    assert_every_surface_shows_the_jobs_own(jobs, root, monkeypatch, capsys)


def test_a_dense_job_shows_what_it_was_asked_and_no_failure_of_an_earlier_one(make_settings, tmp_path, monkeypatch):
    root = tmp_path / "outputs"
    words = ("pruner=dense", "stages=[evaluate]")
    run(make_settings(*words, outputs=root), tmp_path)
    one = run(make_settings(*words, "task.kinds=[generative]", outputs=root), tmp_path)
    table = shown_on_screen([one], Store(root), monkeypatch)
    assert list(table["multiple choice"]) == [None] and len(table) == 1
    failed = replace(one, status="failed", artifacts={})
    failed.write(Store(root).jobs / f"{one.job}.json")
    pruned = run(make_settings("pruner=wanda", "task.kinds=[generative]", "stages=[evaluate]", outputs=root), tmp_path)
    table = shown_on_screen([pruned], Store(root), monkeypatch)
    assert [variant.split()[0] for variant in table["variant"]] == ["dense", "wanda"]
    assert table["generation"].notna().all()
