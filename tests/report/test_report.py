"""The report: numbers as the tables have them, nothing from outside, and a page that works in a browser."""

from __future__ import annotations

import base64
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_tables import (
    LINE,
    SETUPS,
    comparisons_table,
    fidelity_table,
    fill,
    identified,
    jobs_table,
    main_scores,
    measures_table,
    options_table,
    perplexity_rows,
    prompts_table,
    save,
    scores_table,
    second_model,
    trajectories_table,
)
from html_page import ADDRESSES, Element, note, read, value
from PIL import Image
from small_report import NAMES, few_coarse_figures

from pipeline.analysis import theorems
from pipeline.analysis.effects import effects, sentence
from pipeline.report import write
from pipeline.report.__main__ import main

HOSTILE = """</p><script>alert("1")</script> 'a' & "b" {{ 7 * 7 }}"""


@pytest.fixture(autouse=True, scope="module")
def _few_coarse_figures() -> Iterator[None]:
    with few_coarse_figures():
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(fill(tmp_path_factory.mktemp("outputs")))


@pytest.fixture(scope="module")
def document(path: Path) -> Element:
    return read(path.read_text(encoding="utf-8"))


@pytest.mark.rotated("bytes of the report")
def test_same_tables_make_same_bytes_without_torch(path: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.plot import style\n"
        "from pipeline.plot.drawing import draw\n"
        "from pipeline.report import page\n"
        f"style.DPI = 40; page.draw = lambda outputs, settings, **how: draw(outputs, {NAMES}, settings, **how)\n"
        "page.write(Path(sys.argv[1]))\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'lm_eval', 'hydra')))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "7000000000"}
    subprocess.run([sys.executable, "-c", script, str(fill(tmp_path))], check=True, env=environment)
    assert (tmp_path / "report" / "index.html").read_bytes() == path.read_bytes()
    # The page, and what it was written from.
    assert {file.name for file in path.parent.iterdir()} == {"index.html", ".page.json"}


def test_nothing_is_loaded_from_outside(document: Element) -> None:
    for element in document.all():
        for name in ADDRESSES:
            address = element.attributes.get(name, "#")
            beside = element.tag == "a" and re.fullmatch(r"\.\./figures/\w+\.(png|csv)", address)
            assert address.startswith(("#", "data:")) or beside, (element.tag, address[:80])
        assert "url(" not in element.attributes.get("style", "")
    assert not document.all("link", "iframe", "object", "embed", "base")[1:]
    (sheet,) = document.all("style")
    assert "url(" not in sheet.text and "@import" not in sheet.text
    policy = [meta.attributes["content"] for meta in document.all("meta") if "http-equiv" in meta.attributes]
    assert policy[0].startswith("default-src 'none'; img-src data:;")


def test_structure_is_accessible(document: Element) -> None:
    levels = [int(heading.tag[1]) for heading in document.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = [element.attributes["id"] for element in document.all() if "id" in element.attributes]
    assert len(names) == len(set(names))
    for element in document.all():
        for attribute in ("aria-labelledby", "for"):
            assert element.attributes.get(attribute, names[0]) in names
        if element.attributes.get("href", "").startswith("#"):
            assert element.attributes["href"][1:] in names
    assert all(head.attributes.get("scope") in {"row", "col", "colgroup", "rowgroup"} for head in document.all("th"))
    assert all(image.attributes["alt"] for image in document.all("img") if "src" in image.attributes)


def signed(number: float) -> str:
    return f"{100 * number:+.1f}".replace("-", "−")


def test_scores_and_their_differences(document: Element) -> None:
    scores = main_scores().set_index(["pruner", "sparsity", "task"])
    dense, pruned = scores.loc[("dense", "0", "facts")], scores.loc[("wanda", "2:4", "facts")]
    row = comparisons_table().query("pruner == 'wanda' and sparsity == '2:4' and task == 'facts'").iloc[0]
    table = document.by_id("scores-table")
    heads = [head.text for head in table.all("button")]
    assert heads[:3] == ["task", "items", "dense"] and len(heads) == 3 + len(SETUPS)
    cells = table.rows()["facts"]
    cell = cells[heads.index("wanda 2:4") - 1]
    assert value(cell) == pytest.approx(100 * pruned["value"], rel=1e-8)
    assert note(cell) == f"{signed(row.difference)} [{signed(row.low)}, {signed(row.high)}], {row.verdict}"
    assert value(cells[0]) == dense["n"]
    assert value(cells[1]) == pytest.approx(100 * dense["value"], rel=1e-8)
    assert note(cells[1]) == f"± {100 * dense['stderr']:.1f}"
    assert [head.text for head in table.all("th") if "rowgroup" in head.attributes["scope"]] == [
        "generation",
        "multiple choice",
    ]


def test_the_answer_is_effects_with_the_largest_gap_first(document: Element) -> None:
    found = effects(comparisons_table().assign(options="", replicates=1))
    section = document.by_id("answer")
    assert [item.text for item in section.all("li")] == [sentence(effect).replace(" %", "\u00a0%") for effect in found]
    assert list(document.by_id("answer-table").rows()) == [effect.variant.label for effect in found]
    gaps = [effect.gap for effect in found]
    assert gaps == sorted(gaps, reverse=True)
    assert section.all("li")[0].text.startswith(f"{found[0].variant.pruner} at ")
    retained, score = document.by_id("answer-table").rows()["shortgpt 0.4"][:2]
    row = comparisons_table().query("task == 'mean'").set_index(["kind", "pruner", "sparsity"]).sort_index()
    row = row.loc[("generative", "shortgpt", "0.4")]
    assert value(retained) == pytest.approx(100 * row.retained, rel=1e-8)
    assert note(retained) == f"[{100 * row.retained_low:.0f}, {100 * row.retained_high:.0f}]".replace("-", "−")
    before, after = 100 * row.dense, 100 * row.pruned
    assert score.text.startswith(f"{before:.1f} → {after:.1f}") and note(score).endswith(", lost")
    assert f"[{signed(row.low)}, {signed(row.high)}]" in note(score)
    assert value(score) == pytest.approx(after - before, rel=1e-8)


def test_a_figure_stands_beside_the_answer_and_the_supplement_is_folded(document: Element) -> None:
    assert [figure.attributes["id"] for figure in document.by_id("answer").all("figure")] == ["fig01_score_vs_sparsity"]
    folded = document.by_id("supplement")
    assert folded.tag == "details" and "open" not in folded.attributes
    shown = [figure.attributes["id"].partition("_")[0] for figure in document.by_id("figures").all("figure")]
    assert shown == ["fig07", *(figure.attributes["id"].partition("_")[0] for figure in folded.all("figure"))]
    assert not [fold for fold in document.all("details") if "open" in fold.attributes]


def test_too_few_items_are_not_called_kept(tmp_path: Path) -> None:
    """Every variant with six items a task: nothing can be said of what hardly changes."""
    table = comparisons_table(SETUPS[:2])
    few = table.assign(
        n=6,
        pruned=table["dense"] - 0.05,
        difference=-0.05,
        low=-0.4,
        high=0.3,
        verdict="cannot be told",
    )
    page = read(write(save(tmp_path, scores=scores_table(SETUPS[:2]), comparisons=few)).read_text())
    cells = page.by_id("answer-table").rows()["shortgpt 0.2"]
    assert note(cells[1]).endswith("cannot be told") and note(cells[3]).endswith("cannot be told")
    assert note(page.by_id("scores-table").rows()["facts"][2]) == "−5.0 [−40.0, +30.0], cannot be told"


def test_perplexities_beside_the_scores(tmp_path: Path) -> None:
    scores = scores_table(SETUPS[6:8])
    tables = {"scores": pd.concat([scores, perplexity_rows(scores)]), "comparisons": comparisons_table(SETUPS[6:8])}
    page = read(write(save(tmp_path, **tables, jobs=jobs_table(SETUPS[6:8]))).read_text())
    _, before, *pruned = page.by_id("scores-table").rows()["wiki"]
    assert before.text == "12.50" and pruned[-1].text.startswith("25.00") and note(pruned[-1]) == "× 2"
    rows = list(page.by_id("tab1_drop_table-table").rows().values())
    assert rows[0][-1].text.startswith("12.5") and any(row[-1].text.startswith("25.0") for row in rows)


def test_jobs_and_representations(document: Element) -> None:
    rows = [row.all("th", "td") for row in document.by_id("pruned-table").all("tbody")[0].all("tr")]
    shown = {(row[0].text.strip(), row[1].text.strip()): row for row in rows}
    job = jobs_table().set_index(["pruner", "sparsity"]).loc[("attn_drop", "8")]
    row = shown["attn_drop", "8"]
    assert [value(cell) for cell in row[3:]] == [100 * job["achieved"], job["dense_parameters"], job["parameters"]]
    assert row[2].text.strip() == "attention sublayers" and "--share:0.1000" in row[3].all("i")[0].attributes["style"]
    assert ("dense", "0") not in shown and len(shown) == len(SETUPS)

    measures = measures_table(layers=5, count=4).query("temperature == 1.0 and pruner == 'wanda' and sparsity == '4:8'")
    by_prompt = measures.groupby(["protocol", "prompt"])[["cos_h", "cos_z", "cos_p", "kl"]].mean()
    means = by_prompt.groupby("protocol").mean()
    cells = document.by_id("deviations-table").rows()["wanda 4:8"]
    expected = [*means.loc["teacher_forced"], *means.loc["free_running"], 3]  # prompts part at steps 2, 3, 4 and 5
    assert [value(cell) for cell in cells] == pytest.approx(expected, rel=1e-8)

    forced = measures_table(layers=5, count=4).query(
        "temperature == 1.0 and pruner == 'wanda' and sparsity == '4:8' and protocol == 'teacher_forced'"
    )
    cells = document.by_id("agreement-table").rows()["wanda 4:8"]
    expected = [len(forced), *np.quantile(forced["kl"], [0.5, 0.9, 0.99, 1.0])]
    expected += [100 - 100 * forced["flip"].mean(), 100 - 100 * forced["tv"].mean()]
    assert [value(cell) for cell in cells] == pytest.approx(expected, rel=1e-8)

    options = options_table(count=4).query("temperature == 1.0 and pruner == 'wanda' and sparsity == '4:8'")
    means = options.groupby("set")[["kl", "flip"]].mean().loc[["options", "control", "vocabulary"]]
    right = options.query("set == 'options'")[["correct_dense", "correct_pruned"]].mean()
    cells = document.by_id("options-table").rows()["wanda 4:8"]
    expected = [*means["kl"], *(100 * means["flip"]), *(100 * right)]
    assert [value(cell) for cell in cells] == pytest.approx(expected, rel=1e-8)


def test_theorems_are_one_heat_map_with_one_sentence(document: Element) -> None:
    rows = measures_table(layers=5, count=4).query("protocol == 'layer' and temperature == 1.0")
    tracked = theorems.tracking(rows.assign(options=""))
    section = document.by_id("theory")
    (table,) = section.all("table")
    assert [item.text for item in section.all("li")] == theorems.breaks(tracked)
    kept = (tracked["low"] >= theorems.LEAST_CORRELATION).sum()
    lost = (tracked["high"] < theorems.LEAST_CORRELATION).sum()
    known = tracked["rank_correlation"].notna().sum()
    about = document.by_id("theory-about").text
    assert f" in {kept} of {known} places" in about and f"; in {lost} the interval is below" in about
    assert f"in {known - kept - lost} it cannot be told" in about
    for body, (theorem, own) in zip(table.all("tbody"), tracked.groupby("theorem", sort=False), strict=True):
        assert body.all("th")[0].text == f"Theorem {theorem}"
        own = own.query("pruner == 'wanda' and sparsity == '0.4' and sublayer == 'mlp'").sort_values("layer")
        (cells,) = (row.all("td") for row in body.all("tr")[1:] if row.all("th")[0].text == "wanda 0.4, MLP")
        assert [value(cell) for cell in cells] == pytest.approx(list(100 * own["rank_correlation"]), rel=1e-8)


def test_figures_tables_and_what_is_missing(path: Path, document: Element) -> None:
    folder = path.parents[1] / "figures"
    shown = [figure.attributes["id"] for figure in document.all("figure")]
    assert [name.split("_")[0] for name in shown] == ["fig01", "fig07", "fig05", "tab1", "tab3"]
    for figure in document.all("figure"):
        name = figure.attributes["id"]
        links = [link.attributes for link in figure.all("a") if "download" in link.attributes]
        content = base64.b64decode(links[0]["href"].partition("base64,")[2])
        if packed := links[0]["download"] == f"{name}.csv.gz":
            content = gzip.decompress(content)
        assert packed or links[0]["download"] == f"{name}.csv"
        assert content == (folder / f"{name}.csv").read_bytes()
        assert any(link.attributes["href"] == f"../figures/{name}.png" for link in figure.all("a"))
        assert f"Settings: {LINE}." in figure.text
    cell = document.by_id("tab1_drop_table-table").rows()["Drop-8M"][1]
    score = main_scores().query("pruner == 'mlp_drop' and sparsity == '8' and task == 'cloze'")["value"].item()
    assert value(cell) == pytest.approx(100 * score, rel=1e-8)
    assert (
        document.by_id("tab3_prompts-table").all("tbody")[0].text.count("which of these is it?\nA. this\nB. that") == 4
    )
    (missing,) = document.with_class("missing")[0].all("li")
    assert "Figure 10" in missing.text and "no other model" in missing.text
    assert missing.all("code")[0].text == "python -m pipeline.main -m experiment=fig10"


def test_titles_and_captions_are_on_the_page_once_in_both_styles(path: Path, document: Element) -> None:
    for style_name, folder in (("screen", "figures"), ("paper", "figures/paper")):
        if style_name == "paper":
            assert main([f"outputs={path.parents[1]}", "figures.style=paper"]) == 0
        page = document if style_name == "screen" else read(path.read_text(encoding="utf-8"))
        for link in page.with_class("enlarge"):
            (shown,) = link.all("img")
            size = int(shown.attributes["width"]), int(shown.attributes["height"])
            content = base64.b64decode(shown.attributes["src"].partition("base64,")[2])
            with Image.open(path.parent / link.attributes["href"]) as whole, Image.open(BytesIO(content)) as picture:
                assert picture.size == size and Path(link.attributes["href"]).parent.name == Path(folder).name
                head, foot = map(int, whole.info["Margins"].split())
                assert size == (whole.width, whole.height - head - foot)
                assert (head > 0 and foot > 0) == (style_name == "screen")
    write(path.parents[1])


def test_texts_are_shown_literally_and_split_where_they_part(tmp_path: Path) -> None:
    texts = trajectories_table(count=2)
    texts = texts[texts["sparsity"].isin(["8", "0.2"])].copy()
    texts.loc[texts["pruned_token"] >= 1000, "pruned_text"] = HOSTILE
    ended = (texts["pruner"] == "mlp_drop") & (texts["step"] >= 5)
    texts.loc[texts["pruner"] == "mlp_drop", "pruned_token"] = texts["dense_token"]
    texts.loc[ended, ["pruned_token", "pruned_text"]] = [-1, ""]
    prompts = prompts_table(2).assign(text=HOSTILE, prompt=lambda t: t["prompt"] + HOSTILE)
    texts["prompt"] += HOSTILE
    frames = {"trajectories": texts, "prompts": prompts}
    path = write(save(tmp_path, **{name: frame.assign(model=HOSTILE) for name, frame in frames.items()}))
    document = read(path.read_text())
    assert len(document.all("script")) == 1 and "alert" not in document.all("script")[0].text
    assert HOSTILE in document.all("title")[0].text and HOSTILE in document.all("option")[0].text
    second = document.by_id("prompt-2")
    assert second.all("blockquote")[0].text == HOSTILE
    steps = texts["step"][texts["prompt"] == f"arithmetic-1{HOSTILE}"].max() + 1
    columns = {column.all("h4")[0].text: column for column in second.with_class("text")}
    assert list(columns) == ["dense", "shortgpt 0.2", "attn_drop 8", "mlp_drop 8"]
    assert columns["dense"].all("p")[0].text == steps * " word"
    column = columns["attn_drop 8"]
    assert column.with_class("same")[0].text == 3 * " word" and column.with_class("mark")[0].text == "step 3"
    assert column.with_class("other")[0].text == HOSTILE
    assert column.all("p")[0].text == 3 * " word" + "step 3" + (steps - 3) * HOSTILE
    assert columns["mlp_drop 8"].with_class("mark")[0].text == "step 5: ends here"


@pytest.mark.parametrize("setups", [[("wanda", "0")], SETUPS[4:5]])
def test_copes_with_any_set_of_tables(tmp_path: Path, setups: list[tuple[str, str]]) -> None:
    outputs = second_model(fill(tmp_path, setups), "other-lm")
    assert "other-lm" in read(write(outputs).read_text()).by_id("peers").text
    for name in ("options", "prompts", "measures", "trajectories"):
        (outputs / "tables" / f"{name}.parquet").unlink()
        document = read(write(outputs).read_text())
        assert document.by_id("scores-table").rows()["facts"]
    scores = scores_table(setups)
    save(outputs, scores=scores[scores["pruner"] == "dense"])
    (outputs / "tables" / "comparisons.parquet").unlink(missing_ok=True)
    assert "python -m pipeline.main -m experiment=fig01" in read(write(outputs).read_text()).by_id("answer").text


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"outputs={tmp_path}"]) == 1 and "no tables" in capsys.readouterr().err
    big = identified(scores_table(), "other tasks", model="big-lm")
    save(tmp_path, scores=pd.concat([scores_table(), big.assign(job=big["job"] + "-big")]))
    assert main(["--outputs", str(tmp_path), "--settings", "none such"]) == 2
    assert main(["--outputs", str(tmp_path), "--settings", "big"]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'report' / 'index.html'}\n"
    assert read((tmp_path / "report" / "index.html").read_text()).with_class("model")[0].text == "big-lm"


def test_lost_answers_are_counted_as_in_the_table(path: Path, document: Element) -> None:
    """The section "demoted or erased": its numbers from the tasks' rows, and its sentence on the variant with most."""
    rows = fidelity_table().query("kind == 'generative' and task != 'mean'")
    sums = rows.groupby(["pruner", "sparsity"])[["dense_right", "lost", "lost_ranked", "lost_within_5"]].sum()
    most = sums[sums["lost"] == sums["lost"].max()]
    text = path.read_text(encoding="utf-8")
    shares = 100 * most["lost_within_5"] / most["lost_ranked"]
    (found,) = re.findall(r"Of the (\d+) that leave the right answer at a token, (\d+)\u00a0% \[", text)
    assert found in [(f"{n:.0f}", f"{share:.0f}") for n, share in zip(most["lost_ranked"], shares, strict=True)]
    for (pruner, sparsity), own in sums.iterrows():
        assert f"{own['lost']:.0f} of {own['dense_right']:.0f}" in text, (pruner, sparsity)
