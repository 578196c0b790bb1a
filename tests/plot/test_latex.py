"""LaTeX of figures and tables: complete environments, rows of as many cells as columns, and texts as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from figure_tables import SETUPS, prompts_table, save, scores_table, trajectories_table

from pipeline.plot import latex, style
from pipeline.plot.cell_text import Piece, plain
from pipeline.plot.discovery import resolve
from pipeline.plot.figure_csv import from_csv, to_csv
from pipeline.plot.table_block import Block, Column
from pipeline.tables.choice import choose
from pipeline.tables.read import load

ODD = r"50% & $x_1^2$ #7 {a} ~ \b <c|d> [e] *f* -- ''g''"
ESCAPED = (
    r"50\% \& \$x\_1\textasciicircum{}2\$ \#7 \{a\} \textasciitilde{} \textbackslash{}b"
    r" \textless{}c\textbar{}d\textgreater{} {[}e] {*}f{*} -{}- '{}'g'{}'"
)


def cells(row: str) -> int:
    """How many columns the cells of a row are over."""
    spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", row)]
    return 1 + len(re.findall(r"(?<!\\)&", row)) + sum(span - 1 for span in spans)


def assert_valid(text: str) -> None:
    """Environments and braces close in order, every row has a cell for each column, and nothing else is special."""
    begun: list[str] = []
    for verb, name in re.findall(r"\\(begin|end)\{(.*?)\}", text):
        assert verb == "begin" or begun.pop() == name
        begun += [name] * (verb == "begin")
    bare = re.sub(r"\\[\\&%$#_{}]", "", text)
    assert not begun and bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search(r"[~%#^]", bare.replace("[HTML]", ""))
    for form, body in re.findall(r"\\begin\{tabular\}\{@\{\}(.*?)@\{\}\}\n(.*?)\\end\{tabular\}", text, re.DOTALL):
        columns = len(re.sub(r"\{[\d.]+in\}", "", form))
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert [cells(row) for row in rows] == [columns] * len(rows)
        assert [body.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_texts_are_printed_letter_by_letter() -> None:
    assert latex.escaped(ODD) == ESCAPED
    columns = [Column("first name", 0.4), Column("n_1", 0.4, right=True), Column("text", 1.0)]
    row = [plain("name"), plain("1"), (Piece("same\n", style.GREY), Piece(f"\u4e2d{ODD}", bold=True))]
    with style.look():
        written = latex.tables("tab9", ODD, "page", [Block(columns, [row], {1: "over_all"})] * 2)
    assert_valid(written)
    assert rf"\caption{{{ESCAPED}}}\label{{tab:tab9}}" in written and r"{@{}lrp{1.00in}@{}}" in written
    assert (
        r"& \multicolumn{2}{c}{over\_all} \\" in written and r"\shortstack[l]{first\\name} & n\_1 & text \\" in written
    )
    grey = rf"\textcolor[HTML]{{{style.GREY[1:].upper()}}}{{same\mbox{{}}\newline }}"
    assert rf"name & 1 & {grey}\textbf{{\textbackslash{{}}u4e2d{ESCAPED}}} \\" in written


@pytest.mark.parametrize(
    ("span", "environment", "width"), [("column", "figure", "column"), ("page", "figure*", "text")]
)
def test_pictures_are_as_wide_as_in_print(span: str, environment: str, width: str) -> None:
    written = latex.picture("fig99_mine", ODD, span)  # type: ignore[arg-type]
    assert_valid(written)
    assert written.startswith(rf"\begin{{{environment}}}[t]") and rf"\caption{{{ESCAPED}}}" in written
    assert rf"\includegraphics[width=\{width}width]{{fig99_mine.pdf}}" in written


def test_tables_of_the_paper_are_valid(tmp_path: Path) -> None:
    texts = trajectories_table(SETUPS, 4).assign(dense_text=ODD, pruned_text=f"\n{ODD}")
    outputs = save(tmp_path, scores=scores_table(), trajectories=texts, prompts=prompts_table(4).assign(text=ODD))
    tables = load(outputs, choose(outputs))
    for name, figure in resolve(["tab1", "tab2", "tab3"]).items():
        selection = figure.select(tables)
        data, caption = from_csv(to_csv(selection.data)), " ".join(selection.notes)
        with style.look():
            assert figure.blocks is not None
            written = latex.tables(name, caption, figure.span, figure.blocks(data))
        assert_valid(written)
        assert rf"\caption{{{latex.escaped(caption)}}}" in written
