"""Who a job is: every key that changes results parts rows, and repetitions are said."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from job_keys import BASE, KEYS, of_one_key, run

from pipeline.config.choices import CONF
from pipeline.evaluate.task_data import shipped_digest
from pipeline.run.job_record import describe
from pipeline.store.artifacts import Store
from pipeline.store.identity import identify
from pipeline.store.records import load_records
from pipeline.tables.choice import choose
from pipeline.tables.job_columns import HOW
from pipeline.tables.labels import model_names
from pipeline.tables.read import load


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
