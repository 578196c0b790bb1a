"""LaTeX beside the pictures for print: a figure or table environment with the caption, tables ruled by booktabs.

The preamble needs ``graphicx``, ``booktabs`` and ``xcolor``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.plot import style
from pipeline.plot.base import Span
from pipeline.plot.cell_text import Cell, Piece, drawable, wrap_cell
from pipeline.plot.table_block import GAP, Block, Column

_ESCAPES = str.maketrans(
    {mark: rf"\{mark}" for mark in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": r"\mbox{}\newline "}
    # After the end of a row, these two would be its argument.
    | {"[": "{[}", "*": "{*}"}
    | {"\u2212": "$-$", "±": r"$\pm$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "∞": r"$\infty$"}
    | {"ρ": r"$\rho$", "λ": r"$\lambda$", "↵": r"$\hookleftarrow$", "∅": r"$\emptyset$", "·": r"$\cdot$"}
    | {"²": r"$^2$", "‖": r"$\|$", "→": r"$\to$", "\u2423": r"\textvisiblespace{}"}
)
_LIGATURES = re.compile(r"(?<=-)(?=-)|(?<=')(?=')")  # two of these would become one mark
_WIDTHS = {"column": r"\columnwidth", "page": r"\textwidth"}


def escaped(text: str) -> str:
    """Return a text as LaTeX prints it letter by letter."""
    return _LIGATURES.sub("{}", text.translate(_ESCAPES))


def picture(name: str, caption: str, span: Span) -> str:
    """Return a figure environment that includes ``name.pdf``, across the page if the picture is as wide."""
    body = rf"\includegraphics[width={_WIDTHS[span]}]{{{name}.pdf}}"
    return _float("figure", name, caption, span, [r"  \centering", f"  {body}", f"  {_caption(name, caption)}"])


def tables(name: str, caption: str, span: Span, blocks: Sequence[Block]) -> str:
    """Return a table environment with a booktabs tabular for each block, one below the other."""
    lines = [
        r"  \centering\footnotesize",
        rf"  \setlength{{\tabcolsep}}{{{GAP / 2:g}in}}",
        f"  {_caption(name, caption)}",
    ]
    for number, block in enumerate(blocks):
        lines += [r"  \par\medskip"] * bool(number) + [f"  {line}" for line in _tabular(block)]
    return _float("table", name, caption, span, lines)


def _float(kind: str, name: str, caption: str, span: Span, lines: Sequence[str]) -> str:
    environment = f"{kind}*" if span == "page" else kind
    return "\n".join([rf"\begin{{{environment}}}[t]", *lines, rf"\end{{{environment}}}", ""])


def _caption(name: str, caption: str) -> str:
    return rf"\caption{{{escaped(caption)}}}\label{{{'tab' if name.startswith('tab') else 'fig'}:{name}}}"


def _tabular(block: Block) -> list[str]:
    forms = [_form(column, [row[place] for row in block.rows]) for place, column in enumerate(block.columns)]
    lines = [rf"\begin{{tabular}}{{@{{}}{''.join(forms)}@{{}}}}", r"  \toprule"]
    if spans := block.spans:
        over = [rf"\multicolumn{{{last - first + 1}}}{{c}}{{{escaped(text)}}}" for text, first, last in spans]
        rules = [rf"\cmidrule(lr){{{first + 1}-{last + 1}}}" for _, first, last in spans]
        lines += ["  " + "& " * spans[0][1] + " & ".join(over) + r" \\", "  " + "".join(rules)]
    lines.append("  " + " & ".join(_header(column) for column in block.columns) + r" \\")
    lines.append(r"  \midrule")
    lines += ["  " + " & ".join(_cell(cell) for cell in row) + r" \\" for row in block.rows]
    return [*lines, r"  \bottomrule", r"\end{tabular}"]


def _form(column: Column, cells: Sequence[Cell]) -> str:
    """Return how LaTeX sets a column: numbers to the right, texts of several lines as paragraphs."""
    if column.right:
        return "r"
    broken = any(len(wrap_cell(cell, column.width)) > 1 for cell in cells)
    return f"p{{{column.width:.2f}in}}" if broken else "l"


def _header(column: Column) -> str:
    """Return a header, in the lines that it has in the picture."""
    lines = [
        "".join(piece.text for _, piece in line) for line in wrap_cell((Piece(column.header, bold=True),), column.width)
    ]
    if len(lines) < 2:
        return escaped(column.header)
    side, stacked = "r" if column.right else "l", r"\\".join(map(escaped, lines))
    return rf"\shortstack[{side}]{{{stacked}}}"


def _cell(cell: Cell) -> str:
    return "".join(map(_piece, cell))


def _piece(piece: Piece) -> str:
    text = escaped(drawable(piece.text))
    text = rf"\textbf{{{text}}}" if piece.bold and text else text
    return (
        text if piece.colour == style.INK or not text else rf"\textcolor[HTML]{{{piece.colour[1:].upper()}}}{{{text}}}"
    )
