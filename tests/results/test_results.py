"""``python -m pipeline.results`` over two real jobs on a tiny model, and one that failed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY
from hydra import compose, initialize_config_dir

from pipeline.common.files import KEPT_SECONDS
from pipeline.config.choices import CONF
from pipeline.results.__main__ import main
from pipeline.run.compose import resolve
from pipeline.run.job import run_job
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.records import FAILED, JobRecord, load_records
from pipeline.tables.load import load

HOLDER = """
import sys
from pathlib import Path
from pipeline.store.artifacts import Store

def build(folder):
    (folder / "a.txt").write_text("a")
    print("building", flush=True)
    sys.stdin.read()

Store(Path(sys.argv[1])).ensure("slow", {}, build)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """Outputs with dense, wanda and attn_drop, and a job that failed."""
    outputs = tmp_path_factory.mktemp("results") / "outputs"
    for number, pruner in enumerate(("wanda", "attn_drop")):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            overrides = [*TINY, f"outputs={outputs}", f"pruner={pruner}", "sparsity=0.5"]
            settings = resolve(compose("config", overrides=[*overrides, "stages=[prune,evaluate,measure]"]))
        record = run_job(settings, "first", outputs / "runs" / "first" / str(number))
        assert record.error is None
    failed = replace(record, job="f" * 16, settings="other model · seed 1", status=FAILED, error="ValueError: too bad")
    failed.artifacts, failed.cost, failed.settings_id, failed.pruner = {}, {}, "e" * 16, "rtn"
    failed.config = {**record.config, "seed": 1, "pruner.name": "rtn", "task.limit": None}
    failed.replicate = {"seed": 1}
    failed.save(Store(outputs))
    folder = outputs / "runs" / "second"
    failed.write(folder / "0" / "outcome.json")
    (folder / "0" / "traceback.txt").write_text("Traceback: too bad")
    return outputs


@pytest.fixture
def outputs(original, tmp_path) -> Path:
    """A copy to change."""
    shutil.copytree(original, tmp_path / "outputs")
    return tmp_path / "outputs"


@pytest.fixture
def ask(capsys) -> Callable[..., tuple[int, str, str]]:
    """``ask(outputs, "show", …)`` gives exit status, standard output and standard error."""

    def run(outputs: Path, command: str, *arguments: str) -> tuple[int, str, str]:
        status = main([command, "--outputs", str(outputs), *arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def busy(outputs):
    """A living process builds an artifact of the copied outputs."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(outputs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "building\n"
    yield child
    child.stdin.close()
    child.wait()


def jobs(outputs: Path) -> dict[str, JobRecord]:
    return {record.pruner: record for record in load_records(outputs / "jobs")}


def artifact(outputs: Path, pruner: str, role: str) -> Path:
    return outputs / jobs(outputs)[pruner].artifacts[role]


def files(outputs: Path) -> set[Path]:
    return {path.relative_to(outputs) for path in outputs.rglob("*") if path.is_file()}


def orphan(outputs: Path, **inputs: object) -> Artifact:
    return Store(outputs).ensure("decision", inputs, lambda folder: (folder / "a.txt").write_text("a" * 5000))


# --- list --------------------------------------------------------------------------------------------------------


def test_it_is_quick_to_start_and_needs_no_torch(original):
    script = (
        "import sys; from pipeline.results.__main__ import main\n"
        f"assert [main([c, '--outputs', {str(original)!r}, *a]) for c, *a in "
        "(['list'], ['show', 'ffff'], ['verify'], ['gc'])] == [0, 0, 0, 0]\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules and 'wandb' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_list_is_the_default_and_has_a_line_a_job(original, capsys):
    assert main(["--outputs", str(original)]) == 0
    lines = capsys.readouterr().out.splitlines()
    below = next(place for place, line in enumerate(lines) if line.lstrip().startswith("──")) + 1
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[below:]]
    labels = ["dense", "wanda 0.5, 4×32", "attn_drop 0.5, 4×32", "rtn 4×32, seed 1"]
    assert [row[3] for row in rows] == labels
    wanda = rows[1]
    assert jobs(original)["wanda"].job.startswith(wanda[0])
    assert wanda[4:6] == ["matched", "ok"]


def test_json_and_csv_are_complete(original, ask):
    rows = {row["pruner"]: row for row in json.loads(ask(original, "list", "--json")[1])}
    scores = pd.read_parquet(original / "tables" / "scores.parquet")
    mine = scores[(scores.pruner == "wanda") & scores.main]
    assert rows["wanda"]["scores"] == {f"{row.kind}/{row.task}": row.value for row in mine.itertuples()}
    assert rows["wanda"]["means"]["generative"] == mine[mine.kind == "generative"].value.mean()
    assert rows["wanda"]["config"]["task.families"] == ["copying", "plurals"]
    assert rows["wanda"]["peak_gib"] > 0
    assert rows["rtn"]["error"] == "ValueError: too bad"
    table = {row["pruner"]: row for row in csv.DictReader(io.StringIO(ask(original, "list", "--csv")[1]))}
    assert float(table["wanda"]["perplexity/stories"]) == rows["wanda"]["scores"]["perplexity/stories"]
    assert table["rtn"]["perplexity/stories"] == ""


def test_a_score_that_is_no_number_is_null(outputs, ask):
    path = outputs / "tables" / "scores.parquet"
    table = pd.read_parquet(path)
    table.loc[table.kind == "perplexity", "value"] = float("nan")
    table.to_parquet(path)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    rows = json.loads(ask(outputs, "list", "--json", "pruner=wanda")[1], parse_constant=refuse)
    assert rows[0]["scores"]["perplexity/stories"] is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pruner=wanda"], {"wanda"}),
        (["pruner=wanda,dense"], {"wanda", "dense"}),
        (["sparsity=0.50", "model=random"], {"wanda", "attn_drop", "rtn"}),
        (["sparsity=0", "model=random-llama"], {"dense"}),
        (["task=matched", "seed=1"], {"rtn"}),
        (["task.families=[copying, plurals]", "pruner=wanda,awq"], {"wanda"}),
        (["task.families=[copying]"], set()),
        (["probes=null", "task.chat_template=false", "capture.temperature=1"], {"dense", "wanda", "attn_drop", "rtn"}),
        (["model=hf"], set()),
        (["origin.python=" + ".".join(map(str, sys.version_info[:3])), "--status=ok"], {"dense", "wanda", "attn_drop"}),
        (["--status", "failed,skipped"], {"rtn"}),
        (["--since", "1h"], {"dense", "wanda", "attn_drop", "rtn"}),
        (["--since", "2000-01-01", "pruner=rtn"], {"rtn"}),
        (["--since", "2999-01-01"], set()),
    ],
)
def test_filters_speak_as_the_command_line_does(original, ask, arguments, expected):
    status, out, _ = ask(original, "list", "--json", *arguments)
    assert (status, {row["pruner"] for row in json.loads(out)}) == (0, expected)


def test_both_spellings_of_a_pattern(outputs, ask):
    replace(jobs(outputs)["rtn"], job="e" * 16, sparsity="2:4").save(Store(outputs))
    for spelling in ("2:4", "2of4"):
        assert [row["job"] for row in json.loads(ask(outputs, "list", "--json", f"sparsity={spelling}")[1])] == [
            "e" * 16
        ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "prunner=wanda"], ["no job has a key prunner", "did you mean pruner?"]),
        (["list", "task.limits=2"], ["did you mean task.limit?", "task.shots"]),
        (["list", "wanda"], ["'wanda' is not a filter", "key=value"]),
        (["list", "--status", "fine"], ["--status fine", "ok, failed"]),
        (["list", "--since", "yesterday"], ["--since yesterday", "3d"]),
        (["show", "zz"], ["no job's id begins with 'zz'", "list"]),
        (["show", ""], ["no job's id begins with ''"]),
        (["compare", "ff"], ["two or more"]),
        (["remove", "../jobs"], ["no job's id begins with '../jobs'"]),
    ],
)
def test_mistakes_are_told_the_way_out(original, ask, arguments, words):
    status, out, err = ask(original, *arguments)
    assert (status, out) == (2, "")
    for word in words:
        assert word in err


def test_an_id_that_means_several_jobs_is_refused(outputs, ask):
    replace(jobs(outputs)["rtn"], job="f" * 15 + "e").save(Store(outputs))
    status, _, err = ask(outputs, "show", "ffff")
    assert (status, "f" * 15 + "e" in err) == (2, True)
    assert ask(outputs, "show", "f" * 16)[0] == 0


@pytest.mark.parametrize("command", ["list", "verify", "gc"])
def test_outputs_without_jobs(tmp_path, ask, command):
    for folder in (tmp_path, tmp_path / "none"):
        status, _, err = ask(folder, command)
        assert (status, "outputs=" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


# --- show and compare --------------------------------------------------------------------------------------------


def test_show_tells_everything(original, ask):
    record = jobs(original)["wanda"]
    _, out, _ = ask(original, "show", record.job[:6])
    for word in (record.job, record.settings, record.variant_id, record.origin["processor"], "calibration.sequences"):
        assert word in out
    for path in record.artifacts.values():
        assert path in out
    for built in record.cost:
        assert built in out
    _, out, _ = ask(original, "show", "fff")
    assert "ValueError: too bad" in out
    assert str(original / "runs" / "second" / "0" / "traceback.txt") in out


def test_show_says_what_is_missing(outputs, ask):
    shutil.rmtree(artifact(outputs, "wanda", "measures"))
    assert "missing" in ask(outputs, "show", jobs(outputs)["wanda"].job)[1]


def test_compare_shows_differences_and_numbers(original, ask):
    known = jobs(original)
    status, out, _ = ask(original, "compare", known["wanda"].job, known["attn_drop"].job)
    assert status == 0
    assert "pruner.name" in out
    assert "calibration.sequences" not in out
    assert "code, versions and machine: no difference" in out
    scores = pd.read_parquet(original / "tables" / "scores.parquet")
    for pruner in ("wanda", "attn_drop"):
        text = scores[(scores.pruner == pruner) & (scores.kind == "perplexity")].value.item()
        assert f"{text:.3f}" in out
    assert "free_running" in out
    assert "different settings" not in out


def test_compare_warns_of_jobs_that_cannot_be(outputs, ask):
    known = jobs(outputs)
    other = replace(known["rtn"], job="e" * 16, origin={**known["rtn"].origin, "python": "3.99"})
    other.save(Store(outputs))
    _, out, _ = ask(outputs, "compare", known["wanda"].job, other.job)
    assert "! the jobs have different settings (task.limit=2; task.limit=null), so their numbers" in out
    assert "3.99" in out


# --- verify ------------------------------------------------------------------------------------------------------


def test_intact_results_are_fine(original, ask):
    before = files(original)
    status, out, _ = ask(original, "verify")
    assert (status, out) == (0, "no problems: all checksums match\n")
    assert files(original) == before


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damage_is_found_and_set_aside(outputs, ask):
    scores = artifact(outputs, "wanda", "evaluation")
    flip(scores / "items.parquet")
    record = outputs / "jobs" / f"{jobs(outputs)['attn_drop'].job}.json"
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 3'))
    (outputs / "runs" / "second" / "0" / "outcome.json").write_text("{")
    status, out, _ = ask(outputs, "verify")
    assert status == 1
    assert f"{scores.relative_to(outputs)}: items.parquet does not match its checksum" in out
    assert f"jobs/{record.name}: it does not match its checksum" in out
    assert "runs/second/0/outcome.json: it cannot be read" in out
    assert scores.is_dir()
    status, out, _ = ask(outputs, "verify", "--repair")
    assert (status, "3 quarantined in" in out) == (1, True)
    assert not scores.exists()
    assert not record.exists()
    assert len(list((outputs / "store" / ".damaged").iterdir())) == 3
    # What is left to say is what the command of the job makes again.
    status, out, _ = ask(outputs, "verify")
    assert (status, out.splitlines()[0]) == (
        1,
        f"{scores.relative_to(outputs)}: is missing: evaluation of job {jobs(outputs)['wanda'].job}",
    )
    assert "1 problem\n" in out


def test_a_table_that_differs_from_its_artifacts_is_collected_again(outputs, ask):
    path = outputs / "tables" / "measures.parquet"
    table = pd.read_parquet(path)
    table.loc[table.index[table.pruner == "wanda"][3], "kl"] += 1e-9
    table.to_parquet(path)
    (outputs / "tables" / "options.parquet").unlink()
    prompts = outputs / "tables" / "prompts.parquet"
    prompts.write_bytes(prompts.read_bytes()[:-9])
    status, out, _ = ask(outputs, "verify", "--repair")
    assert status == 1
    assert f"tables/measures.parquet: differs from the results of job {jobs(outputs)['wanda'].job}" in out
    assert jobs(outputs)["attn_drop"].job not in out
    assert "tables/options.parquet: is missing" in out
    assert "tables/prompts.parquet: cannot be read" in out
    assert ask(outputs, "verify")[0] == 0


@pytest.mark.parametrize(
    ("name", "column"), [("items", "score"), ("jobs", "achieved"), ("scores", "seed"), ("comparisons", "difference")]
)
def test_every_table_is_held_against_what_it_comes_from(outputs, ask, name, column):
    path = outputs / "tables" / f"{name}.parquet"
    table = pd.read_parquet(path)
    table.loc[table.index[table.pruner == "wanda"][0], column] += 1
    table.to_parquet(path)
    status, out, _ = ask(outputs, "verify")
    assert status == 1
    assert f"tables/{name}.parquet: differs from the results of job {jobs(outputs)['wanda'].job}" in out


def test_rows_of_a_job_that_is_gone_are_found(outputs, ask):
    gone = jobs(outputs)["wanda"].job
    (outputs / "jobs" / f"{gone}.json").unlink()
    _, out, _ = ask(outputs, "verify")
    assert f"tables/scores.parquet: has rows of {gone}, which is not a finished job" in out


def test_verify_of_one_job_reads_what_that_job_needs(outputs, ask):
    known = jobs(outputs)
    flip(artifact(outputs, "wanda", "evaluation") / "items.parquet")
    assert ask(outputs, "verify", known["attn_drop"].job)[0] == 0
    assert ask(outputs, "verify", known["wanda"].job)[0] == 1


def test_a_record_that_leads_out_of_the_store_is_a_problem(outputs, ask):
    record = jobs(outputs)["wanda"]
    record.artifacts["evaluation"] = "store/../../elsewhere"
    record.write(outputs / "jobs" / f"{record.job}.json")
    status, out, _ = ask(outputs, "verify")
    assert status == 1
    assert f"jobs/{record.job}.json: " in out


# --- gc and remove -----------------------------------------------------------------------------------------------


def test_gc_finds_nothing_where_all_is_needed(original, ask):
    assert ask(original, "gc", "--yes")[:2] == (0, "nothing to remove\n")


def test_gc_shows_and_with_yes_removes_what_no_job_refers_to(outputs, ask):
    before = files(outputs)
    loose = orphan(outputs, version=3, decision="0" * 16)
    damaged = outputs / "store" / ".damaged" / "decision-x"
    damaged.mkdir(parents=True)
    old = outputs / "store" / ".unfinished" / "decision-0123456789abcdef"
    old.mkdir(parents=True, exist_ok=True)
    for path in (outputs / "runs").rglob("*"):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    status, out, _ = ask(outputs, "gc")
    assert status == 0
    assert f"{loose.path.relative_to(outputs)}  (no job refers to it)" in out
    assert "store/.damaged/decision-x" in out
    assert "runs/second" in out
    assert "runs/first" not in out
    assert "nothing was removed: add --yes" in out
    assert loose.path.is_dir()
    assert ask(outputs, "gc", "--yes")[0] == 0
    assert files(outputs) == {path for path in before if path.parts[:2] != ("runs", "second")}
    # Parts of an interrupted build are there to be gone on with.
    assert old.is_dir()
    assert not damaged.exists()
    assert ask(outputs, "verify")[0] == 0


def test_parts_that_nobody_goes_on_with_are_gone_after_two_weeks(outputs, ask):
    old = outputs / "store" / ".unfinished" / "decision-0123456789abcdef"
    old.mkdir(parents=True, exist_ok=True)
    os.utime(old, (time.time() - KEPT_SECONDS - 60,) * 2)
    assert ask(outputs, "gc", "--yes")[0] == 0
    assert not old.exists()


def test_a_failed_command_of_today_keeps_its_logs(outputs, ask):
    assert ask(outputs, "gc", "--yes")[0] == 0
    assert (outputs / "runs" / "second" / "0" / "traceback.txt").is_file()


def test_what_an_interrupted_job_has_built_is_kept_but_not_that_of_older_versions(outputs, ask):
    store = Store(outputs)
    config = jobs(outputs)["rtn"].config
    # Begun with other stages, to which the record of the same job does not go back.
    store.origin = {"config": {**config, "stages": ["prune"]}}
    older, newer = (store.ensure("decision", {"version": version, "a": 1}, lambda folder: None) for version in (3, 4))
    of_older, of_newer = (store.ensure("child", {"decision": made.key}, lambda folder: None) for made in (older, newer))
    store.origin = {"config": {**config, "seed": 99}}
    stranger = store.ensure("decision", {"version": 4, "a": 2}, lambda folder: None)
    child = store.ensure("evaluation", {"version": 3, "decision": stranger.key}, lambda folder: None)
    _, out, _ = ask(outputs, "gc")
    for gone in (older, of_older, stranger, child):
        assert str(gone.path.relative_to(outputs)) in out
    for kept in (newer, of_newer):
        assert str(kept.path.relative_to(outputs)) not in out


def test_gc_leaves_a_living_process_alone(outputs, ask, busy):
    loose = orphan(outputs, version=3, a=1)
    damaged = outputs / "store" / ".damaged" / "decision-x"
    damaged.mkdir(parents=True)
    status, out, _ = ask(outputs, "gc", "--yes")
    assert (status, "is in use (" in out) == (0, True)
    assert loose.path.is_dir()
    assert not damaged.exists()
    status, _, err = ask(outputs, "remove", "ff", "--yes")
    assert (status, "try again when it is done" in err) == (2, True)
    assert "rtn" in jobs(outputs)


def test_gc_does_not_guess_what_a_damaged_record_needs(outputs, ask):
    record = outputs / "jobs" / f"{jobs(outputs)['wanda'].job}.json"
    record.write_text(record.read_text()[:-40])
    before = files(outputs)
    status, _, err = ask(outputs, "gc", "--yes")
    assert (status, "verify --repair" in err) == (2, True)
    assert files(outputs) == before


def test_remove_takes_a_job_and_what_no_other_needs(outputs, ask):
    known = jobs(outputs)
    gone, stays, before = known["wanda"], known["attn_drop"], files(outputs)
    status, out, _ = ask(outputs, "remove", gone.job[:8])
    assert (status, "nothing was removed" in out, files(outputs) == before) == (0, True, True)
    assert ask(outputs, "remove", gone.job[:8], "--yes")[0] == 0
    assert set(jobs(outputs)) == {"dense", "attn_drop", "rtn"}
    assert not (outputs / gone.artifacts["measures"]).exists()
    for path in [*stays.artifacts.values(), *known["dense"].artifacts.values()]:
        assert (outputs / path / "manifest.json").is_file()
    # What it was made from stays as well, although the removed job had built that.
    parent = Artifact(outputs / stays.artifacts["measures"], "measures", "").manifest()["inputs"]["dense"]
    assert f"trajectory/{parent}" in gone.cost
    assert (outputs / "store" / "trajectory" / parent / "manifest.json").is_file()
    assert set(pd.read_parquet(outputs / "tables" / "scores.parquet").pruner) == {"dense", "attn_drop"}
    assert ask(outputs, "verify")[0] == 0
    assert ask(outputs, "gc")[:2] == (0, "nothing to remove\n")


def test_nothing_outside_the_store_is_ever_removed(outputs, ask, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "a.txt").write_text("a")
    record = replace(jobs(outputs)["rtn"], job="e" * 16, artifacts={"a": "store/../../precious", "b": str(precious)})
    record.cost = {"../../precious": {}, "decision/../../../precious": {}}
    record.write(outputs / "jobs" / f"{record.job}.json")
    (outputs / "store" / "decision" / ("a" * 16)).symlink_to(precious)
    assert ask(outputs, "remove", "ee", "--yes")[0] == 0
    assert ask(outputs, "gc", "--yes")[0] == 0
    assert (precious / "a.txt").read_text() == "a"
    assert not (outputs / "store" / "decision" / ("a" * 16)).exists()


def test_tables_that_are_gone_are_made_again_from_the_jobs(outputs):
    tables = dict(load(outputs))
    shutil.rmtree(outputs / "tables")
    again = load(outputs)
    # A job ends after its tables are written.
    for name, frame in tables.items():
        pd.testing.assert_frame_equal(
            *(rows.drop(columns="finished", errors="ignore") for rows in (again[name], frame))
        )
    assert {"wanda", "attn_drop"} <= set(again.scores["pruner"])
