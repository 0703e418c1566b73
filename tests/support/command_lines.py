"""Command lines of the program, as its parser sees them."""

import shlex
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer

from autoseg.cli.app import COMMANDS, app


def find_command(words: Sequence[str]) -> tuple[str, Any, list[str]]:
    """Returns the name of the command with which a line begins, which may be of two words, its parser, and the rest."""
    parser, name, rest = typer.main.get_command(app), "", list(words)
    while hasattr(parser, "commands"):
        assert rest, f"{name!r} is no command but a group of them"
        word, *rest = rest
        name = f"{name} {word}".strip()
        assert word in parser.commands, f"there is no command {name!r}"
        parser = parser.commands[word]
    return name, parser, rest


@cache
def all_commands() -> dict[str, Any]:
    """Returns the parser of each command, by its name."""
    return {name: find_command(name.split())[1] for name in COMMANDS}


def parse(line: str | Sequence[str]) -> None:
    """Parses a line without running it; exits if a command, an option or a value is unknown."""
    name, parser, arguments = find_command(shlex.split(line) if isinstance(line, str) else line)
    parser.make_context(name, arguments)
