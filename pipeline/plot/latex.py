"""LaTeX beside the pictures for print: a figure or table environment with the caption, tables ruled by booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.plot.base import Span
from pipeline.plot.cell_text import Cell
from pipeline.plot.table_block import Block

_ESCAPES = str.maketrans(
    {mark: rf"\{mark}" for mark in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\u2212": "$-$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": r"\newline "}
)
_WIDTHS = {"column": r"\columnwidth", "page": r"\textwidth"}


def escaped(text: str) -> str:
    """Return a text as LaTeX prints it letter by letter."""
    return text.translate(_ESCAPES)


def picture(name: str, caption: str, span: Span) -> str:
    """Return a figure environment that includes ``name.pdf``, across the page if the picture is as wide."""
    body = rf"\includegraphics[width={_WIDTHS[span]}]{{{name}.pdf}}"
    return _float("figure", name, caption, span, [r"  \centering", f"  {body}", f"  {_caption(name, caption)}"])


def tables(name: str, caption: str, span: Span, blocks: Sequence[Block]) -> str:
    """Return a table environment with a booktabs tabular for each block."""
    lines = [r"  \centering\small", f"  {_caption(name, caption)}"]
    for block in blocks:
        lines += [f"  {line}" for line in _tabular(block)]
    return _float("table", name, caption, span, lines)


def _float(kind: str, name: str, caption: str, span: Span, lines: Sequence[str]) -> str:
    environment = f"{kind}*" if span == "page" else kind
    return "\n".join([rf"\begin{{{environment}}}[t]", *lines, rf"\end{{{environment}}}", ""])


def _caption(name: str, caption: str) -> str:
    return rf"\caption{{{escaped(caption)}}}\label{{{'tab' if name.startswith('tab') else 'fig'}:{name}}}"


def _tabular(block: Block) -> list[str]:
    form = "".join("r" if column.right else f"p{{{column.width:.2f}in}}" for column in block.columns)
    lines = [rf"\begin{{tabular}}{{@{{}}{form}@{{}}}}", r"  \toprule"]
    if block.spanner:
        first, last = block.first + 1, len(block.columns)
        lines.append(
            "  " + "& " * block.first + rf"\multicolumn{{{last - block.first}}}{{c}}{{{escaped(block.spanner)}}} \\"
        )
        lines.append(rf"  \cmidrule{{{first}-{last}}}")
    lines.append("  " + " & ".join(escaped(column.header) for column in block.columns) + r" \\")
    lines.append(r"  \midrule")
    lines += ["  " + " & ".join(_cell(cell) for cell in row) + r" \\" for row in block.rows]
    return [*lines, r"  \bottomrule", r"\end{tabular}"]


def _cell(cell: Cell) -> str:
    return "".join(rf"\textbf{{{escaped(piece.text)}}}" if piece.bold else escaped(piece.text) for piece in cell)
