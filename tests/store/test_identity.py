"""Who a job is: every key that changes results parts rows, repetitions are said, and every number is its job's own."""

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
import yaml
from choice import some
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_profiles import chosen

from pipeline.analysis.score_rows import final_deviation, rows_of_jobs
from pipeline.config.choices import CONF
from pipeline.evaluate.task_data import shipped_digest
from pipeline.plot.drawing import draw
from pipeline.plot.figure_csv import from_csv
from pipeline.prune.settings import Settings
from pipeline.report import write
from pipeline.results.__main__ import main as results
from pipeline.run import summary
from pipeline.run.job import run_job
from pipeline.run.job_record import describe
from pipeline.store.artifacts import Store
from pipeline.store.identity import identify
from pipeline.store.records import OK, JobRecord, load_records
from pipeline.tables.choice import choose
from pipeline.tables.job_columns import HOW, IDS, JOB_COLUMNS, WHO
from pipeline.tables.job_tables import JobTables
from pipeline.tables.labels import Facts, model_names, option_texts
from pipeline.tables.read import load
from pipeline.track.over_sparsity import curves

BASE = ("pruner=wanda", "sparsity=0.5", "capture.option_items=1", "capture.steps=3", "calibration.batch_size=4")
# Each key with two values; whether jobs that differ in it alone repeat each other, and which id tells them apart.
KEYS = {
    "pruner option": (("pruner=rtn", "pruner=rtn"), ("pruner.bits=3", "pruner.bits=8"), "variant_id"),
    "seed": ((), ("seed=0", "seed=1"), "replicate"),
    "draw": (("pruner=random_attn", "sparsity=2"), ("pruner.draw=1", "pruner.draw=2"), "replicate"),
    "calibration set": ((), ("calibration=news", "calibration=wiki"), "variant_id"),
    "calibration length": ((), ("calibration.length=32", "calibration.length=48"), "variant_id"),
    "dtype": ((), ("dtype=float32", "dtype=bfloat16"), "settings_id"),
    "shots": ((), ("task.shots=0", "task.shots=2"), "settings_id"),
    "capture steps": ((), ("capture.steps=2", "capture.steps=4"), "settings_id"),
    "temperature": ((), ("measure.temperatures=[1.0]", "measure.temperatures=[2.0]"), "settings_id"),
    "task limit": ((), ("task.limit=2", "task.limit=3"), "settings_id"),
    "families": ((), ("task.families=[copying]", "task.families=[plurals]"), "settings_id"),
    "held-out text": ((), ("perplexity.tokens=96", "perplexity.tokens=128"), "settings_id"),
    "model": ((), ("model.layers=4", "model.layers=3"), "variant_id"),
}
# The option is one of a pruner that reads no text, so that its calibration changes nothing.
SOME_PAIRS = some(
    "pairs of keys",
    [
        f"{first} & {second}"
        for first, second in itertools.combinations(sorted(set(KEYS) - {"draw", "dtype"}), 2)
        if "pruner option" not in (first, second) or not f"{first}{second}".startswith("calibration")
    ],
    count=1,
)


def of_one_key(name: str, place: int) -> tuple[str, ...]:
    base, values, _ = KEYS[name]
    return (*base, values[place])


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_changes_results_changes_one_id(make_settings, name):
    first, second = (describe(make_settings(*BASE, *of_one_key(name, place))) for place in (0, 1))
    told = {"variant_id", "settings_id", "replicate"}
    assert {field for field in told if getattr(first, field) != getattr(second, field)} == {KEYS[name][2]}
    assert first.job != second.job
    assert (first.model_id != second.model_id) == (name == "model")


def test_probes_chat_template_and_files_part_jobs_too(make_settings, tmp_path):
    (tmp_path / "one.txt").write_text("Once upon a time\n")
    (tmp_path / "two.txt").write_text("It was a dark night\n")
    ways = [f"probes={tmp_path}/one.txt", f"probes={tmp_path}/two.txt", "task.chat_template=true"]
    ways += ["capture.protocols=[layer]", "measure.readout=final_norm", "capture.dtype=float64"]
    ids = [describe(make_settings(*BASE, *([way] if way else []))).settings_id for way in ("", *ways)]
    assert len(set(ids)) == len(ids)
    text = ("calibration=file", f"calibration.path={tmp_path}/one.txt")
    before = describe(make_settings(*BASE, *text))
    (tmp_path / "one.txt").write_text("Twice upon a time\n")
    assert describe(make_settings(*BASE, *text)).variant_id != before.variant_id


def test_two_folders_of_one_name_are_two_models_with_a_short_name(make_settings, make_model, tmp_path):
    words = []
    for place, layers in (("first", 4), ("second", 3)):
        folder = tmp_path / place / "pruned"
        make_model(layers=layers).save_pretrained(folder)
        words.append(("model=hf", f"model.path={folder}", "wandb.mode=disabled"))
    jobs = [describe(make_settings(base=own)) for own in words]
    assert [job.model for job in jobs] == ["pruned", "pruned"]
    for field in ("model_id", "model_revision", "variant_id", "job"):
        assert len({getattr(job, field) for job in jobs}) == 2
    names = model_names((job.model_id, job.model) for job in jobs)
    assert sorted(names.values()) == sorted(f"pruned #{job.model_id[:4]}" for job in jobs)


def test_what_only_changes_speed_changes_no_id_in_full_precision_alone(make_settings):
    words = ("task.batch_size=4", "calibration.batch_size=2")
    for dtype, same in (("float32", True), ("bfloat16", False)):
        first, second = (describe(make_settings(*BASE, f"dtype={dtype}", *more)) for more in ((), words))
        assert (first.job == second.job) == same


def test_a_further_kind_of_fact_changes_no_id_of_jobs_without_it():
    facts = {"model": {"type": "pipeline.model.sources.random.RandomModel", "layers": 4}, "pruner": {"type": "a.Wanda"}}
    known = identify(facts, {"dtype": "float32"}, {"seed": 0})
    assert identify({**facts, "repair": None}, {"dtype": "float32", "engine": {}}, {"seed": 0}) == known
    moved = {"model": {"type": "elsewhere.RandomModel", "layers": 4}, "pruner": {"type": "b.c.Wanda"}}
    assert identify(moved, {"dtype": "float32"}, {"seed": 0}) == known
    assert identify({**facts, "repair": "healed"}, {"dtype": "float32"}, {"seed": 0}).variant_id != known.variant_id


def test_a_function_of_ours_counts_by_its_name_in_task_files(tmp_path):
    paths = [tmp_path / f"{name}.yaml" for name in "abc"]
    for path, target in zip(paths, ("pipeline.a.load", "pipeline.b.c.load", "pipeline.a.other"), strict=True):
        path.write_text(f"task: x\ncustom_dataset: !function {target}\ntest_split: test\n")
    here, moved, other = map(shipped_digest, paths)
    assert here == moved != other


def test_keys_name_classes_not_the_places_where_they_stand(make_settings):
    settings = make_settings(*BASE, "pruner=wanda_divergence", "sparsity=0.5")
    facts = [part.identity() for part in (settings.model, settings.pruner, settings.calibration, settings.task)]
    facts.append(settings.pruner.scoring_identity())
    assert "pipeline." not in json.dumps(facts, default=str)
    targets = {
        str(yaml.safe_load(path.read_text()).get("_target_"))
        for group in ("model", "pruner", "calibration", "task")
        for path in CONF.glob(f"{group}/*.yaml")
    }
    assert len({target.rpartition(".")[2] for target in targets}) == len(targets), "two classes of one name"


# --- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variants", "texts"),
    [
        ([({"bits": 3}, ["bits"]), ({"bits": 4}, [])], ["3 bits", "4 bits"]),
        ([({"bits": 4}, [])], [""]),
        ([({"calibration.families": ["a", "b", "c"]}, ["calibration.families"])], ["3 families"]),
        ([({"calibration.families": ["a", "b"]}, ["calibration.families"])], ["families a, b"]),
        ([({"calibration.name": "wiki", "calibration.sequences": 4}, ["calibration.name"])], ["wiki"]),
        (
            [({"calibration.name": "news", "calibration.sequences": n, "calibration.length": 32}, []) for n in (8, 16)],
            ["8×32", "16×32"],
        ),
        (
            [
                ({"calibration.name": "news", "calibration.sequences": 8, "calibration.field": "text"}, []),
                ({"calibration.name": "trajectories", "calibration.sequences": 4}, ["calibration.name"]),
            ],
            ["news", "trajectories"],
        ),
        ([({"calibration.name": "file", "calibration.path": f"/a/{n}.txt"}, []) for n in "xy"], ["x.txt", "y.txt"]),
        (
            [({"lazy": True, "power": 1.5}, ["power"]), ({"lazy": False, "power": 1.0}, [])],
            ["lazy, power 1.5", "no lazy, power 1.0"],
        ),
    ],
)
def test_texts_name_what_differs_or_was_changed(variants, texts):
    facts = [Facts(str(n), "pruner", "0.5", options, changed) for n, (options, changed) in enumerate(variants)]
    assert list(option_texts(facts).values()) == texts


@chosen()
@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["0.2", "2:4"]), st.text(max_size=4)), max_size=6))
def test_no_two_variants_of_a_pruner_and_sparsity_have_the_same_text(rows):
    """Whatever names and values hold: one that options do not tell apart is called after its id."""
    facts = [Facts(f"{n:016x}"[::-1], pruner, word, {"text": text}, []) for n, (pruner, word, text) in enumerate(rows)]
    texts = option_texts(facts)
    named = [(own.pruner, own.sparsity, texts[own.variant_id]) for own in facts]
    assert len(set(named)) == len(named)


# --- every surface -------------------------------------------------------------------------------------------------


def run(settings_of_job: Settings, folder: Path) -> JobRecord:
    record = run_job(settings_of_job, "test", folder)
    assert record.status == OK, record.error
    return record


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
    points = from_csv(drawn["fig01"].paths[2].read_bytes()).query("series == 'mean' and pruner != 'dense'")
    assert len(points) == len(here) * points["kind"].nunique()
    of = tables.jobs.set_index("job")
    steps = from_csv(drawn["fig07"].paths[2].read_bytes())
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


# --- results of an earlier layout ----------------------------------------------------------------------------------


def test_records_of_the_earlier_layout_are_read_with_their_columns_filled(make_settings, tmp_path):
    root = tmp_path / "outputs"
    stages = "stages=[prune,evaluate,capture,measure]"
    record = run(make_settings(*BASE, stages, outputs=root), tmp_path)
    draw_ = run(make_settings("pruner=random_attn", "pruner.draw=2", "sparsity=2", stages, outputs=root), tmp_path)
    store = Store(root)
    today = {job.job: job for job in load_records(store.jobs)}
    new = ("model_id", "model_revision", "variant_id", "settings_id", "base_id", "replicate", "dtype", "calibrated")
    from pipeline.common.files import write_json
    from pipeline.store.integrity import sealed

    for path in store.jobs.glob("*.json"):
        facts = json.loads(path.read_text())
        facts = {key: value for key, value in facts.items() if key not in (*new, "checksum")}
        write_json(path, sealed(facts | {"layout": 3, "states": "x", "asked": {}}))
    before = {job.job: job for job in load_records(store.jobs)}
    assert set(before) == set(today)
    for name, job in before.items():
        for field in new:
            assert getattr(job, field) == getattr(today[name], field), (job.pruner, field)
    assert before[draw_.job].replicate == {"seed": 0, "pruner.draw": 2}
    # Tables of that time lack the columns: they are made again when somebody reads them.
    for path in store.tables.glob("*.parquet"):
        frame = pd.read_parquet(path)
        frame.drop(columns=[name for name in (*HOW, "variant_id", "settings_id") if name in frame]).to_parquet(path)
    assert load(root, choose(root)).jobs["job"].isin(list(before)).all()
    # Run again, a job is there once.
    run(make_settings(*BASE, stages, outputs=root), tmp_path)
    assert len([job for job in load_records(store.jobs) if job.variant_id == record.variant_id]) == 1
