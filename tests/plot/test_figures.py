"""Figures: drawn from tables alone, reproducible to the byte, and plain about what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cases import SOME_FIGURES, SOME_FILES, SOME_SELECTIONS
from choice import some
from drawn_figures import tiles_of
from figure_tables import (
    LINE,
    MODEL,
    SETUPS,
    fill,
    identified,
    jobs_of,
    jobs_table,
    main_scores,
    measures_table,
    save,
    scores_table,
    second_model,
)
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from places import PYTHONPATH

from pipeline.plot import style
from pipeline.plot.__main__ import main
from pipeline.plot.discovery import figures
from pipeline.plot.drawing import draw
from pipeline.plot.figure_csv import from_csv, to_csv
from pipeline.tables.choice import UnknownSettings, choose
from pipeline.tables.job_columns import WHO
from pipeline.tables.read import load
from pipeline.tables.stored import MissingData

SOME_LOGARITHMIC = some("logarithmic axes", ["fig05", "fig06", "fig07", "fig11", "fig13", "fig14"], always=["fig06"])


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "DPI", 40)


def canvas_of(outputs: Path, name: str) -> Canvas:
    """The canvas that the CSV of a figure draws."""
    with style.look():
        return figures()[name].draw(from_csv((outputs / "figures" / f"{name}.csv").read_bytes()), "", "")


def contents(outputs: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((outputs / "figures").iterdir())}


def draw_and_select(outputs: Path) -> None:
    """The files of some figures, and of others what decides about their files."""
    draw(outputs, SOME_FILES)
    tables = load(outputs, choose(outputs))
    for name in SOME_SELECTIONS:
        selection = figures()[name].select(tables)
        text = "\n".join([selection.title, *selection.notes]).encode()
        (outputs / "figures" / f"{name}.selected").write_bytes(to_csv(selection.data) + text)


@pytest.mark.rotated("bytes of figures")
def test_same_tables_make_same_bytes_without_torch(tmp_path: Path) -> None:
    setups = [*SETUPS[4:], ("divergence", "4"), ("divergence_estimate", "4")]
    here = second_model(fill(tmp_path / "here", setups, layers=2), "other-lm")
    there = Path(shutil.copytree(here, tmp_path / "there"))
    script = (
        "import sys; from pathlib import Path; from test_figures import draw_and_select, style\n"
        "style.DPI = 40; draw_and_select(Path(sys.argv[1]))\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'lm_eval', 'hydra')))"
    )
    # Sets of words have another order there.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": "2000000000"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), PYTHONPATH])
    subprocess.run([sys.executable, "-c", script, str(there)], check=True, env=environment)
    draw_and_select(here)
    assert len(contents(here)) == 3 * len(SOME_FILES) + len(SOME_SELECTIONS)
    assert contents(here) == contents(there)


def test_drawn_lines_are_the_csv(tmp_path: Path) -> None:
    (result,) = draw(fill(tmp_path), ["fig04_layer_cosine"])
    assert [path.suffix for path in result.paths] == [".png", ".csv"]
    data = from_csv((tmp_path / "figures" / "fig04_layer_cosine.csv").read_bytes())
    panel = canvas_of(tmp_path, "fig04_layer_cosine").axes[0]
    part = data[(data["pruner"] == "shortgpt") & (data["sublayer"] == "attention")]
    for line, space in zip(panel.lines, ("h", "z", "p"), strict=True):
        expected = part.loc[part["space"] == space, "median_deviation"]
        np.testing.assert_array_equal(np.asarray(line.get_ydata()), expected)
    rows = measures_table(layers=5, count=4).query("protocol == 'layer' and temperature == 1.0")
    rows = rows.query("pruner == 'shortgpt' and sparsity == '0.2' and sublayer == 'attention' and layer == 2")
    drawn = part[(part["space"] == "p") & (part["layer"] == 2)].iloc[0]
    by_prompt = 1 - rows.groupby("prompt")["cos_p"].mean()
    assert drawn["median_deviation"] == pytest.approx(by_prompt.median(), rel=1e-6)
    assert drawn["high_deviation"] == pytest.approx(by_prompt.quantile(0.75), rel=1e-6)


@pytest.mark.usefixtures("no_pictures")
def test_mean_scores_and_their_errors(tmp_path: Path) -> None:
    draw(save(tmp_path, scores=scores_table()), ["fig01"])
    data = from_csv((tmp_path / "figures" / "fig01_score_vs_sparsity.csv").read_bytes())
    mean = data.query("series == 'mean' and pruner == 'wanda' and sparsity == '2:4' and kind == 'generative'").iloc[0]
    rows = main_scores().query("pruner == 'wanda' and sparsity == '2:4' and kind == 'generative'")
    assert mean["score_percent"] == pytest.approx(100 * rows["value"].mean())
    assert mean["stderr_percent"] == pytest.approx(100 * np.sqrt((rows["stderr"] ** 2).sum()) / 3)
    assert mean["achieved_percent"] == pytest.approx(50)


@pytest.mark.usefixtures("no_pictures")
def test_means_use_the_tasks_that_every_point_has(tmp_path: Path) -> None:
    scores = scores_table()
    lost = (scores["pruner"] == "wanda") & (scores["sparsity"] == "0.4") & (scores["task"] == "facts")
    (result,) = draw(save(tmp_path, scores=scores[~lost]), ["fig01"])
    data = from_csv(result.paths[-1].read_bytes())
    assert "facts" not in set(data["series"])
    assert "some points lack them: facts." in result.caption


def shows_something(panel: Axes) -> bool:
    """Whether a panel has a line with a number in it, a bar, a point or a word."""
    lines = any(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in panel.lines)
    return bool(panel.texts) or (panel.axison and (lines or bool(panel.patches or panel.collections)))


@pytest.mark.parametrize(
    ("setups", "lacking"),
    [
        (SETUPS, ["fig28", "fig29"]),
        (SETUPS[:1], ["fig09", "fig12", "fig13", "fig27", "fig28", "fig29"]),
        (
            [("wanda", "0")],
            ["fig03", "fig04", "fig09", "fig12", "fig20", "fig21", "fig22", "fig27", "fig28", "fig29", "tab1"],
        ),
    ],
)
def test_no_panel_is_empty_and_no_text_leaves_the_page(
    tmp_path: Path, setups: list[tuple[str, str]], lacking: list[str]
) -> None:
    outputs = second_model(fill(tmp_path, setups, layers=3), "other-lm")
    tables, missing = load(outputs, choose(outputs)), []
    for name, figure in figures().items():
        try:
            selection = figure.select(tables)
        except MissingData:
            missing.append(name.partition("_")[0])
            continue
        if name not in SOME_FIGURES:
            continue
        with style.look():
            data = from_csv(to_csv(selection.data))
            canvas = figure.draw(data, selection.title, " ".join(selection.notes))
            FigureCanvasAgg(canvas).draw()
        assert all(shows_something(panel) for panel in canvas.axes), name
        box = canvas.get_tightbbox()
        assert box.x0 >= 0 and box.y0 >= 0, name
        # A panel may end where the page does, but for rounding.
        assert box.x1 <= canvas.get_figwidth() + 1e-9 and box.y1 <= canvas.get_figheight() + 1e-9, name
    assert [*dict.fromkeys(missing)] == lacking


@pytest.mark.usefixtures("no_pictures")
def test_exact_zeros_survive_logarithmic_axes(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = draw(fill(tmp_path, [("wanda", "0")], layers=3), SOME_LOGARITHMIC)
        for result in results:
            FigureCanvasAgg(canvas_of(tmp_path, result.name)).draw()
    assert all(result.drawn for result in results)
    frames, lines = tiles_of(canvas_of(tmp_path, "fig06_measured_vs_estimate"))
    (top, bottom), values = frames[0], lines[0][0][:, 1]
    assert len(values) > 10 and set(values) == {values[0]} and bottom < values[0] < (top + bottom) / 2


@pytest.mark.usefixtures("no_pictures")
def test_what_equals_the_dense_model_is_named(tmp_path: Path) -> None:
    captions = [result.caption for result in draw(fill(tmp_path, [*SETUPS, ("wanda", "0")]), ["fig06", "fig07"])]
    assert all("Not shown, identical to the dense model at every position: wanda 0." in text for text in captions)


@pytest.mark.usefixtures("no_pictures")
def test_equal_sparsities_share_a_line(tmp_path: Path) -> None:
    (result,) = draw(fill(tmp_path), ["fig05"])
    sparsities = from_csv(result.paths[-1].read_bytes()).groupby("pruner")["sparsity"].unique().map(list).to_dict()
    assert sparsities == {
        "attn_drop": ["4, 8"],
        "rtn": ["0"],
        "shortgpt": ["0.2, 0.4"],
        "sparsegpt": ["2:4"],
        "wanda": ["0.4", "2:4, 4:8"],
    }


@pytest.mark.usefixtures("no_pictures")
def test_first_different_token_is_the_median_over_prompts(tmp_path: Path) -> None:
    (result,) = draw(fill(tmp_path), ["fig07"])
    data = from_csv(result.paths[-1].read_bytes())
    assert set(data["first_difference"]) == {3.0}  # prompts part at steps 2, 3, 4 and 5: the lower median


@pytest.mark.usefixtures("no_pictures")
def test_what_has_no_room_is_named(tmp_path: Path) -> None:
    setups = [(name, "0.2") for name in ("zeta", "wanda", "sparsegpt", "magnitude", "awq")]
    (result,) = draw(fill(tmp_path, setups), ["fig13"])
    assert "Left out for space: zeta 0.2." in result.caption
    assert len(canvas_of(tmp_path, result.name).axes) == 8


@pytest.mark.usefixtures("no_pictures")
def test_missing_data_are_listed_and_older_files_removed(tmp_path: Path) -> None:
    draw(fill(tmp_path), ["fig05"])
    assert len(list((tmp_path / "figures").iterdir())) == 3
    (tmp_path / "tables" / "measures.parquet").unlink()
    gone = ("fig04", "fig05", "fig06", "fig07")
    results = {result.name[:5]: result for result in draw(tmp_path, ["fig01", *gone])}
    assert results["fig01"].missing is None
    for name in gone:
        missing = results[name].missing
        assert missing and "no rows" in missing and missing.endswith(f"python -m pipeline.main -m experiment={name}")
        assert not list((tmp_path / "figures").glob(f"*{name}*"))
    measures = measures_table(layers=5, count=4).assign(est_kl=np.nan)
    (result,) = draw(save(tmp_path, measures=measures), ["fig06"])
    assert result.missing and "est_kl" in result.missing


@pytest.mark.usefixtures("no_pictures")
def test_unchanged_figures_are_skipped(tmp_path: Path) -> None:
    def drawn(force: bool = False) -> list[str]:
        return [result.name[:5] for result in draw(tmp_path, ["fig01", "fig05"], force=force) if result.drawn]

    fill(tmp_path, SETUPS[2:4])
    assert drawn() == ["fig01", "fig05"]
    assert drawn() == []
    assert drawn(force=True) == ["fig01", "fig05"]
    (tmp_path / "figures" / "fig05_orthogonal_magnitude.csv").unlink()
    (tmp_path / "figures" / "fig01_score_vs_sparsity.png").write_bytes(b"of another job")
    assert drawn() == ["fig01", "fig05"]
    scores = scores_table(SETUPS[2:4])
    save(tmp_path, scores=scores.assign(value=scores["value"] / 2))
    assert drawn() == ["fig01"]


@pytest.mark.usefixtures("no_pictures")
def test_settings_of_the_newest_job_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = identified(scores_table().drop(columns=list(WHO[:1])), "other tasks · #cd34", model="big-lm")
    finished = {"tiny-lm": "2026-01-02T00:00:00+00:00", "big-lm": "2026-01-01T00:00:00+00:00"}
    both = pd.concat([scores_table(), big.assign(job=big["job"] + "-big")])
    jobs = jobs_of(both)
    save(tmp_path, scores=both, jobs=jobs.assign(finished=jobs["model"].map(finished)))
    line = "big-lm · other tasks · #cd34"
    assert main(["fig01", "--outputs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"settings: {LINE}\n") and "--settings" in printed and line in printed
    (result,) = draw(tmp_path, ["fig01"], settings="BIG")
    assert result.drawn and f"Settings: {line}." in result.caption
    assert result.caption.endswith(f"Not drawn: other settings, {LINE}.")
    assert main(["--outputs", str(tmp_path), "--settings", "lm"]) == 2
    assert "2 settings contain 'lm'" in capsys.readouterr().err
    assert main(["--outputs", str(tmp_path), "--settings", "big-lm tasks"]) == 2
    assert f"Did you mean {line!r}?" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_repetitions_are_drawn_as_their_mean_with_their_spread(tmp_path: Path) -> None:
    plain = scores_table().drop(columns=["job"])
    parts = [
        identified(plain.assign(value=plain["value"] * share), seed=seed) for seed, share in enumerate((1, 0.8, 0.6))
    ]
    save(tmp_path, scores=pd.concat(parts, ignore_index=True))
    (result,) = draw(tmp_path, ["fig01"])
    dense = from_csv(result.paths[-1].read_bytes()).query("pruner == 'dense' and series == 'cloze'")
    expected = 100 * main_scores().query("pruner == 'dense' and task == 'cloze'")["value"].iloc[0]
    assert list(dense["score_percent"]) == pytest.approx([0.8 * expected])
    assert list(dense["stderr_percent"]) == pytest.approx([np.std([1, 0.8, 0.6], ddof=1) * expected])
    assert "3 seeds or draws" in result.caption


def test_wrong_names_and_no_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--outputs", str(tmp_path)]) == 1
    assert "no tables" in capsys.readouterr().err
    assert main(["fig04_layer_cosin", "--outputs", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "did you mean fig04_layer_cosine?" in message and all(name in message for name in figures())


def test_colours_of_unknown_pruners_differ() -> None:
    names = ["wanda", "mystery", "other", "third"]
    colours = style.pruner_colours(names)
    assert len(set(colours.values())) == len(names)
    assert colours["wanda"] == style.LOOKS["wanda"][0]
    assert style.pruner_colours(["mystery", "wanda"])["mystery"] == style.pruner_colours(["mystery"])["mystery"]


def test_jobs_that_were_asked_otherwise_are_not_drawn_together(tmp_path: Path) -> None:
    """Their lines may be alike: ids alone tell what goes together."""
    outputs = fill(tmp_path)
    moved = "trial tasks · #ab13"
    later = jobs_table(SETUPS, moved)
    later = later.assign(job=later["job"] + "-moved", finished="2031-01-01")
    theirs = scores_table(SETUPS, moved)
    save(outputs, jobs=pd.concat([jobs_table(SETUPS), later]), scores=theirs.assign(job=theirs["job"] + "-moved"))
    for apart in (choose(outputs), choose(outputs, "#ab13")):
        assert (apart.line, apart.others) == (f"{MODEL} · {moved}", (LINE,))
        assert load(outputs, apart).measures.empty and not load(outputs, apart).scores.empty
    assert load(outputs, choose(outputs, "#ab12")).scores.empty
    with pytest.raises(UnknownSettings, match="2 settings contain 'tiny'"):
        choose(outputs, "tiny")
