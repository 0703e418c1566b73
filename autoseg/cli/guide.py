"""The command that shows the pages of the guide, which are Markdown files inside the package."""

import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from typing import Annotated

import typer

from autoseg.errors import UsageError

INDEX = "README"
ENTRY = re.compile(r"- \[.*?\]\((?P<name>\w+)\.md\): (?P<purpose>.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of the guide, as the index lists it.

    Attributes:
        name: Its subject, which is the name of its file.
        kind: Heading below which the index lists it, such as "How-to".
        purpose: What it is for, in one sentence.
    """

    name: str
    kind: str
    purpose: str


def guide(
    name: Annotated[
        str | None, typer.Argument(help="Page to show. [default: a list of all pages]", metavar="PAGE")
    ] = None,
) -> None:
    """Lists the pages of the guide, or shows one.

    On a terminal a page is formatted; in a pipe or a file it is plain Markdown.
    """
    from rich.markdown import Markdown

    from autoseg.cli.terminal import console

    pages = list_pages()
    if name is None:
        _print_list(pages)
        return
    text = read_page(name, [page.name for page in pages])
    if console.is_terminal:
        console.print(Markdown(text, hyperlinks=False), soft_wrap=False)
    else:
        sys.stdout.write(text)


def list_pages() -> list[Page]:
    """Returns all pages in the order of the index, README.md."""
    pages: list[Page] = []
    kind = ""
    for line in _read(INDEX).splitlines():
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        elif entry := ENTRY.fullmatch(line):
            pages.append(Page(name=entry["name"], kind=kind, purpose=entry["purpose"]))
    return pages


def read_page(name: str, names: list[str]) -> str:
    """Returns the Markdown text of a page.

    Args:
        name: Name of the page.
        names: Names of all pages.

    Raises:
        UsageError: There is no such page; the text names similar ones.
    """
    if name not in names:
        similar = get_close_matches(name.lower(), names)
        hint = f"did you mean {' or '.join(similar)}? " if similar else ""
        raise UsageError(f"the guide has no page {name!r}", f"{hint}'autoseg guide' lists all pages")
    return _read(name)


def _read(name: str) -> str:
    return files("autoseg").joinpath("guide", f"{name}.md").read_text(encoding="utf-8")


def _print_list(pages: list[Page]) -> None:
    """Prints each kind of page with its pages and their purposes."""
    from rich.padding import Padding
    from rich.table import Table

    from autoseg.cli.terminal import console, print_whole

    width = max(len(page.name) for page in pages)
    for kind in dict.fromkeys(page.kind for page in pages):
        table = Table.grid(padding=(0, 2))
        table.add_column(width=width, no_wrap=True)
        table.add_column()
        for page in pages:
            if page.kind == kind:
                table.add_row(page.name, page.purpose)
        console.print(kind, style="bold")
        print_whole(Padding(table, (0, 0, 1, 2)))
    console.print("show one: autoseg guide PAGE")
