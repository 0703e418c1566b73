"""RESULTS.md and the scripts' descriptions name commands that exist, and each figure says what it was measured on."""

import argparse
import re
import runpy
import shlex
from functools import cache
from pathlib import Path

import pytest
from command_lines import parse

FOLDER = Path(__file__).parent
CHECKOUT = FOLDER.parents[1]
RESULTS = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
SCRIPT = "python tests/benchmarks/"
MARKED_TESTS = "python -m pytest -m benchmark "
TABLE_OF_PARITY = "AUTOSEG_NNUNET_PYTHON=PYTHON pytest tests/parity --parity-table FILE"


class ParserFoundError(Exception):
    """Ends a script where it would parse its arguments; holds its parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


@cache
def parser_of(script: str) -> argparse.ArgumentParser:
    """Runs a script until it has made its parser, and returns that."""

    def stop(parser: argparse.ArgumentParser, arguments: object = None) -> None:
        raise ParserFoundError(parser)

    with pytest.MonkeyPatch.context() as patches:
        patches.syspath_prepend(FOLDER)
        patches.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(ParserFoundError) as stopped:
            runpy.run_path(str(FOLDER / script), run_name="__main__")
    return stopped.value.parser


def commands() -> list[str]:
    """The commands of RESULTS.md, which are its indented lines."""
    lines = re.findall(r"^    (\S.*)$", RESULTS, re.MULTILINE)
    return [command for line in lines for command in line.split(" && ")]


def sections() -> list[str]:
    """Everything from one heading of the second level to the next."""
    return re.split(r"^## ", RESULTS, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("command", commands())
def test_command_exists(command: str) -> None:
    """Scripts, commands and options are there, and all that is required is given."""
    if command.startswith(SCRIPT):
        script, *arguments = shlex.split(command.removeprefix(SCRIPT))
        parser_of(script).parse_args(arguments)  # ends with an error unless all is understood
    elif command == TABLE_OF_PARITY:
        assert '"--parity-table"' in (CHECKOUT / "tests/parity/conftest.py").read_text("utf-8")
    elif command.startswith(MARKED_TESTS):
        assert "pytest.mark.benchmark" in (CHECKOUT / command.removeprefix(MARKED_TESTS)).read_text("utf-8")
    elif command == "python tests/check.py":
        assert (CHECKOUT / "tests/check.py").is_file()
    else:
        check_autoseg(command.removeprefix("time "))


def check_autoseg(command: str) -> None:
    """Fails unless the command line takes a command of autoseg."""
    program, *words = shlex.split(command)
    assert program == "autoseg"
    if words != ["--help"]:
        parse(words)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_description_names_its_own_options(path: Path) -> None:
    """The lines that show how a script is called name it and options that it has."""
    description = path.read_text("utf-8").split('"""')[1]
    shown = re.findall(
        r"^    (?:python|PYTHON) tests/benchmarks/(\S+)((?:.*\n)(?:        .*\n)*)", description, re.MULTILINE
    )
    for script, arguments in shown:
        assert script == path.name
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", arguments))
        if options:
            assert options <= set(parser_of(script)._option_string_actions)
    if "\nif __name__ ==" in path.read_text("utf-8"):
        assert shown, "no line shows how it is called"


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.splitlines()[0])
def test_section_says_what_it_was_measured_on(section: str) -> None:
    """One line in every section names the cores and the instruction set, or that they were not recorded."""
    lines = re.findall(r"^Measured on: .*", section, re.MULTILINE)
    assert len(lines) == 1
    assert re.fullmatch(r"Measured on: \d+ cores, .+\.", lines[0])
