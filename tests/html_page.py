"""Read an HTML page as tests need it: its elements, addresses, headings, and tables as rows of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input", "hr"}
ADDRESSES = ("src", "srcset", "href", "action", "poster", "data", "background", "formaction")


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, *tags: str) -> list[Element]:
        """Every descendant with one of these tags, in document order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                found += ([child] if child.tag in tags or not tags else []) + child.all(*tags)
        return found

    def by_id(self, name: str) -> Element:
        return next(element for element in self.all() if element.attributes.get("id") == name)

    def with_class(self, name: str) -> list[Element]:
        return [element for element in self.all() if name in element.attributes.get("class", "").split()]

    def rows(self) -> dict[str, list[Element]]:
        """The rows of the bodies of a table: the text of the first cell -> the other cells."""
        rows = [row.all("th", "td") for body in self.all("tbody") for row in body.all("tr")]
        return {cells[0].text.strip(): cells[1:] for cells in rows}


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attributes})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(content: str) -> Element:
    """The document; every element has to be closed in order."""
    builder = _Builder()
    builder.feed(content)
    builder.close()
    assert len(builder.open) == 1, f"<{builder.open[-1].tag}> is never closed"
    return builder.root


def value(cell: Element) -> float:
    """The number that a cell is sorted by, in nine digits."""
    return float(cell.attributes["data-value"])


def note(cell: Element) -> str:
    """The second line of a cell."""
    return "".join(element.text for element in cell.with_class("note"))
