"""Real offline runs in a temporary folder, read back from their logs."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_wandb import forget_account
from PIL import Image

from pipeline.common.terminal import progress
from pipeline.track import Receipt, RunRecord, RunSpec, read_run, track, tracker
from pipeline.track.readback import Sent, compare

CONFIG = {
    "seed": 3,
    "model": {"name": "toy", "layers": [0, 2], "revision": None},
    "wandb": {"api_key": "abc"},
}
LAYERS = pd.DataFrame({"layer": [1, 0, 2], "cos_h": [0.9, 0.8, np.nan], "kl": [0.1, np.inf, 0.3]})
STEPS = pd.DataFrame({"step": np.arange(4), "cos_h": np.linspace(1.0, 0.7, 4, dtype=np.float32)})
TABLE = pd.DataFrame({"task": ["gsm8k", None], "value": [0.5, np.nan]}, index=[7, 8])
SCORES: dict[str, Any] = {
    "gsm8k/exact_match": 0.25,
    "boolq.acc": np.float32(0.5),
    "n": 10,
    "nan": math.nan,
    "model": "toy",
    "no": None,
}


@pytest.fixture(scope="module", autouse=True)
def _no_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        forget_account(patch, tmp_path_factory.mktemp("home"))
        yield


def spec_in(folder: Path, mode: str = "offline") -> RunSpec:
    return RunSpec(folder, mode, "pruning", None, "wanda 2:4", "sweep-1", "prune", ("toy", "x" * 70), CONFIG)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Receipt, RunRecord]:
    """One run with everything in it; the artifact's file is gone before the read-back."""
    folder = tmp_path_factory.mktemp("outputs")
    picture, decision = folder / "fig04.png", folder / "decision.json"
    Image.new("RGB", (8, 4)).save(picture)
    decision.write_text('{"dropped": [1]}')
    with pytest.MonkeyPatch.context() as patch, track(spec_in(folder)) as run:
        patch.setattr(tracker, "TURN_SECONDS", 0.0)
        assert list(progress(["a", "b"], "multiple choice", 2)) == ["a", "b"]
        run.config({"parameters.left": 10})
        run.history({"removed": 0.5})
        logging.getLogger("pipeline.tests").warning("with api_key=%s", "0123456789abcdef")
        run.summary(SCORES)
        run.curve("layer/attention", LAYERS, "layer")
        run.curve("layer/mlp", LAYERS.drop(columns="kl"), "layer")
        run.curve("free_running", STEPS, "step")
        run.image("figures/fig04", picture, "cosine per layer")
        run.table("tables/scores", TABLE)
        run.artifact("decision-toy", "decision", [decision], {"sparsity": "2:4", "outputs": folder})
        decision.unlink()
    assert run.receipt.directory is not None
    return run.receipt, read_run(run.receipt.directory)


def test_receipt_tells_where_the_run_is(logged: tuple[Receipt, RunRecord]) -> None:
    receipt, record = logged
    assert (receipt.verified, receipt.problem, receipt.exit_code, receipt.mode) == (True, None, 0, "offline")
    assert receipt.group == "sweep-1"
    assert receipt.url is None
    assert receipt.sync_command == f"wandb sync {receipt.directory}"
    assert record.run["run_id"] == receipt.run_id


def test_config_is_nested_and_without_secrets(logged: tuple[Receipt, RunRecord]) -> None:
    config = {key: value for key, value in logged[1].config.items() if not key.startswith("_wandb")}
    assert config == {
        "seed": 3,
        "model": {"name": "toy", "layers": [0, 2], "revision": None},
        "wandb": {"api_key": "(hidden)"},
        "parameters": {"left": 10},
    }


def test_run_is_grouped_and_tagged(logged: tuple[Receipt, RunRecord]) -> None:
    run = logged[1].run
    assert (run["project"], run["run_group"], run["job_type"]) == ("pruning", "sweep-1", "prune")
    assert run["display_name"] == "wanda 2:4"
    assert run["tags"] == ["toy", "x" * 64]


def test_summary_holds_the_scores_alone(logged: tuple[Receipt, RunRecord]) -> None:
    own = {key: value for key, value in logged[1].summary.items() if not key.startswith(("_", "figures", "tables"))}
    assert (own.pop("removed"), own.pop("progress/multiple_choice")) == (0.5, 1.0)
    assert own == {"gsm8k/exact_match": 0.25, "boolq.acc": 0.5, "n": 10, "nan": "NaN", "model": "toy"}


def test_history_is_over_time(logged: tuple[Receipt, RunRecord]) -> None:
    for key, expected in {"removed": [0.5], "progress/multiple_choice": [0.5, 1.0]}.items():
        assert [row[key] for row in logged[1].history if key in row] == expected
        assert key not in logged[1].step_metrics


def test_console_is_what_is_logged_without_secrets(logged: tuple[Receipt, RunRecord]) -> None:
    (line,) = [line for line in logged[1].console if "with api_key" in line]
    assert line.endswith("WARNING pipeline.tests: with api_key=(hidden)")


def test_curves_have_their_own_axis(logged: tuple[Receipt, RunRecord]) -> None:
    record = logged[1]
    assert record.step_metrics["layer/attention/cos_h"] == record.step_metrics["layer/mlp/cos_h"] == "layer"
    assert record.step_metrics["free_running/cos_h"] == "step"

    def points(axis: str, series: str) -> list[tuple[object, object]]:
        return [(row[axis], row[series]) for row in record.history if series in row]

    assert points("layer", "layer/attention/cos_h") == [(0, 0.8), (1, 0.9)]
    assert points("layer", "layer/attention/kl") == [(0, "Infinity"), (1, 0.1), (2, 0.3)]
    assert points("layer", "layer/mlp/cos_h") == [(0, 0.8), (1, 0.9)]
    assert points("step", "free_running/cos_h") == [(i, float(x)) for i, x in enumerate(STEPS.cos_h)]


def test_figures_and_tables_are_files_of_the_run(logged: tuple[Receipt, RunRecord]) -> None:
    record = logged[1]
    files = record.directory / "files"
    image = next(row for row in record.history if "figures/fig04.path" in row)
    assert image["figures/fig04.caption"] == "cosine per layer"
    assert Image.open(files / image["figures/fig04.path"]).size == (8, 4)
    table = next(row for row in record.history if "tables/scores.path" in row)
    content = json.loads((files / table["tables/scores.path"]).read_text())
    assert content["columns"] == ["task", "value"]
    assert content["data"] == [["gsm8k", 0.5], [None, None]]


def test_artifact_survives_its_source(logged: tuple[Receipt, RunRecord]) -> None:
    record = logged[1]
    path, size = record.artifacts["decision-toy"]["decision.json"]
    assert record.artifact_types["decision-toy"] == "decision"
    assert path.is_relative_to(record.directory)
    assert path.read_text() == '{"dropped": [1]}'
    assert size == len('{"dropped": [1]}')


def test_everything_stays_under_outputs(logged: tuple[Receipt, RunRecord]) -> None:
    assert not list(Path.home().rglob("wandb"))
    assert "WANDB_DATA_DIR" not in os.environ


@pytest.mark.parametrize("error", [ValueError("no such layer"), KeyboardInterrupt()])
def test_failure_is_recorded_and_raised(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), track(spec_in(tmp_path)) as run:
        run.summary({"score": 1.0})
        raise error
    assert run.receipt.directory is not None
    record = read_run(run.receipt.directory)
    assert run.receipt.exit_code == record.exit_code == 1
    assert run.receipt.verified
    assert record.summary["score"] == 1.0
    assert record.summary["error"].startswith(type(error).__name__)


def test_two_runs_in_one_process_are_two_quiet_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    receipts = []
    for score in (1.0, 2.0):
        with track(spec_in(tmp_path)) as run:
            run.summary({"score": score})
        receipts.append(run.receipt)
    records = [read_run(receipt.directory) for receipt in receipts if receipt.directory]
    assert [(record.summary["score"], record.exit_code) for record in records] == [(1.0, 0), (2.0, 0)]
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
    assert capfd.readouterr() == ("", "")


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    with track(spec_in(tmp_path, "disabled")) as run:
        run.summary(SCORES)
        run.curve("layer", LAYERS, "layer")
        run.image("figure", tmp_path / "none.png", "")
        run.table("table", TABLE)
        run.artifact("decision", "decision", [tmp_path / "none"], {})
    assert run.receipt == Receipt("", "", None, "disabled", None, 0, None, None, None)
    assert not list(tmp_path.iterdir())


def test_receipt_exists_only_after_the_run(tmp_path: Path) -> None:
    with track(spec_in(tmp_path, "disabled")) as run, pytest.raises(RuntimeError, match="still open"):
        _ = run.receipt


def test_import_is_light() -> None:
    code = "import sys, pipeline.track; print([m for m in ('wandb', 'torch', 'pandas') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_lost_records_are_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def cut_then_read(directory: Path) -> RunRecord:
        journal = next(directory.glob("*.wandb"))
        os.truncate(journal, journal.stat().st_size // 2)
        return read_run(directory)

    monkeypatch.setattr(tracker, "read_run", cut_then_read)
    with track(spec_in(tmp_path)) as run:
        run.curve("free_running", STEPS, "step")
        run.summary({"score": 1.0})
    assert run.receipt.verified is False
    # Half a log is one that ends early, or, where the cut falls badly, one that cannot be read.
    found = run.receipt.problem or ""
    assert "the log ends before the run does; summary score is missing" in found or "cannot be read" in found
    assert "incomplete on disk" in caplog.text


def test_read_back_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot be read"):
        read_run(tmp_path / "offline-run-none")


def test_full_disk_does_not_stop_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    source = tmp_path / "decision.json"
    source.write_text("{}")
    with track(spec_in(tmp_path)) as run, monkeypatch.context() as patch:
        patch.setattr(tracker, "link", full)
        run.artifact("decision", "decision", [source], {})
    assert run.receipt.exit_code == 0
    assert run.receipt.verified is False
    assert "decision was not logged: OSError" in (run.receipt.problem or "")
    assert "artifact decision contains nothing" in caplog.text


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with track(spec_in(tmp_path)) as run:
        with pytest.raises(ValueError, match="no step column 'token'"):
            run.curve("layer", LAYERS, "token")
        with pytest.raises(ValueError, match="aggregate"):
            run.curve("layer", pd.concat([LAYERS, LAYERS]), "layer")
        with pytest.raises(ValueError, match=r"\['name'\] are not numeric"):
            run.curve("layer", LAYERS.assign(name="a"), "layer")
        with pytest.raises(FileNotFoundError, match="none.png"):
            run.image("figure", tmp_path / "none.png", "")
        with pytest.raises(TypeError, match="summary score"):
            run.summary({"score": [1.0]})  # type: ignore[dict-item]
    assert run.receipt.verified


def test_comparison_names_each_difference(logged: tuple[Receipt, RunRecord]) -> None:
    record = logged[1]
    sent = Sent({"seed": 3}, {"n": 10})
    assert compare(sent, record, 0) is None
    assert compare(sent, record, 1) == "exit code 0 instead of 1"
    assert compare(Sent({"seed": 4}), record, 0) == "config seed is 3 instead of 4"
    assert compare(Sent({}, {"m": 1}), record, 0) == "summary m is missing"
    sent.points["layer", "layer/mlp/cos_h"] = 3
    assert compare(sent, record, 0) == "curve layer/mlp/cos_h has 2 of 3 values over layer"
    assert compare(Sent({}, media={"figures/none"}), record, 0) == "figures/none is missing"
    moved = replace(record, directory=Path("elsewhere"))
    assert "the file of figures/fig04" in (compare(Sent({}, media={"figures/fig04"}), moved, 0) or "")
    assert "and 2 more" in (compare(Sent(dict.fromkeys("abcdefg", 1)), record, 0) or "")
