"""The little Markdown of a model card, as elements of a page: headings, paragraphs, lists, tables and commands."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of a text.

    Attributes:
        kind: "heading", "paragraph", "list", "table" or "code".
        lines: Its lines as plain texts; of a heading the only one.
        rows: The cells of a table, the titles first.
        level: Level of a heading, from 1.
    """

    kind: str
    lines: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    level: int = 0


def read_blocks(text: str) -> list[Block]:
    r"""Reads a text that `models.model_card` wrote, with its entities as the signs that they stand for.

    Example:
        >>> [block.kind for block in read_blocks("# Name\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- one\n- two\n")]
        ['heading', 'table', 'list']
    """
    lines = text.replace("&lt;", "<").replace("&amp;", "&").splitlines()
    return list(_group(lines))


def _group(lines: Sequence[str]) -> Iterator[Block]:
    """Yields a block for each run of lines of one kind; each heading is a block of its own."""
    for (kind, _), group in groupby(_mark(lines), key=lambda pair: (pair[0], pair[1] if pair[0] == "heading" else "")):
        content = tuple(line for _, line in group)
        if kind:
            yield _make_block(kind, content)


def _mark(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields each line with its kind; the lines around commands are left out."""
    in_code = False
    for line in lines:
        if line.startswith("```"):
            in_code = not in_code
        else:
            yield "code" if in_code else _kind(line), line


def _make_block(kind: str, lines: tuple[str, ...]) -> Block:
    if kind == "heading":
        marks, _, title = lines[0].partition(" ")
        return Block(kind=kind, lines=(title,), level=len(marks))
    if kind == "table":
        return Block(kind=kind, rows=tuple(_cells(line) for line in lines if not re.fullmatch(r"[|\-]+", line)))
    return Block(kind=kind, lines=tuple(line.removeprefix("- ") if kind == "list" else line for line in lines))


def _kind(line: str) -> str:
    """Returns the kind of a line outside commands; empty for an empty line."""
    if not line.strip():
        return ""
    starts = {"#": "heading", "|": "table", "- ": "list"}
    return next((kind for start, kind in starts.items() if line.startswith(start)), "paragraph")


def _cells(line: str) -> tuple[str, ...]:
    r"""Returns the cells of a row.

    Example:
        >>> _cells("| liver\\|spleen | 1 |")
        ('liver|spleen', '1')
    """
    parts = re.split(r"(?<!\\)\|", line.strip()[1:-1])
    return tuple(part.strip().replace("\\|", "|") for part in parts)
