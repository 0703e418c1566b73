"""The texts of a page as a reader of it would find them, by the parser of the standard library."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

EMPTY_TAGS = {"img", "input", "link", "meta", "br"}


@dataclass
class Node:
    """An element of a page: its tag, its attributes, and its texts and elements in order."""

    tag: str
    attributes: dict[str, str | None]
    content: list["str | Node"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All texts within, with single spaces."""
        parts = [part if isinstance(part, str) else part.text for part in self.content]
        return " ".join(" ".join(parts).split())

    def find_all(self, tag: str) -> list["Node"]:
        """Returns all elements of a tag within."""
        elements = [part for part in self.content if isinstance(part, Node)]
        return [found for node in elements for found in ([node] if node.tag == tag else []) + node.find_all(tag)]

    def find(self, identifier: str) -> "Node":
        """Returns the element that has an identifier."""
        elements = [part for part in self.content if isinstance(part, Node)]
        for node in elements:
            if node.attributes.get("id") == identifier:
                return node
        return next(found for node in elements if (found := node.find_or_none(identifier)))

    def find_or_none(self, identifier: str) -> "Node | None":
        """Returns the element that has an identifier, or None."""
        try:
            return self.find(identifier)
        except StopIteration:
            return None


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self.open[-1].content.append(node)
        if tag not in EMPTY_TAGS:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"<{self.open[-1].tag}> is closed by </{tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)


class Page:
    """A page whose elements are all closed in order."""

    def __init__(self, html: str) -> None:
        parser = _Parser()
        parser.feed(html)
        assert parser.open == [parser.root]
        self.root = parser.root

    @property
    def title(self) -> str:
        """Title of the page."""
        return self.root.find_all("title")[0].text

    @property
    def all(self) -> str:
        """All texts of the page."""
        return self.root.text

    def section(self, identifier: str) -> str:
        """Returns the texts of an element."""
        return self.root.find(identifier).text

    def rows_of(self, identifier: str) -> list[list[str]]:
        """Returns the cells of each row of the body of a table, or of the first one in an element."""
        [body, *_] = self.root.find(identifier).find_all("tbody")
        return [[cell.text for cell in row.content if isinstance(cell, Node)] for row in body.find_all("tr")]

    def names_of(self, identifier: str) -> list[str]:
        """Returns the first column of a table."""
        return [row[0] for row in self.rows_of(identifier)]

    def headers_of(self, identifier: str) -> list[str]:
        """Returns the titles of the columns of a table."""
        return [cell.text for cell in self.root.find(identifier).find_all("thead")[0].find_all("th")]


def read_page(html: str) -> Page:
    """Reads a page; fails if an element is not closed in order."""
    return Page(html)
