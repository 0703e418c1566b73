"""Commands, options and public functions of version 0.1.0 work for ever: scripts and notebooks call them by name."""

import inspect
import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "version_1" / "commands.json").read_text())


def name_type(kind) -> str:
    """A type as a text that is the same in all versions of Python; whether None is allowed is left out."""
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return " | ".join(sorted(name_type(one) for one in get_args(kind) if one is not NoneType))
    if get_origin(kind) is list:
        return f"list[{name_type(get_args(kind)[0])}]"
    return kind.__name__


def name_options(kind) -> list[str]:
    """The names of an option, which typer keeps in two places; an argument has none."""
    described = get_args(kind)[1]
    names = [described.default, *(described.param_decls or ())]
    spellings = [spelling for name in names if isinstance(name, str) for spelling in name.split("/")]
    return sorted(spelling for spelling in spellings if spelling.startswith("-"))


def describe_commands() -> dict[str, list[dict[str, object]]]:
    """Every command, and of each of its options and arguments: the names, the type, and whether it must be given."""
    commands = {}
    for command in app.registered_commands:
        types = get_type_hints(command.callback, include_extras=True)
        commands[command.name] = [
            {
                "names": name_options(types[name]),
                "type": name_type(get_args(types[name])[0]),
                "required": parameter.default is parameter.empty,
            }
            for name, parameter in inspect.signature(command.callback).parameters.items()
        ]
    return commands


def describe_functions() -> dict[str, list[str]]:
    """Every public function, and the names of its arguments."""
    functions = {name: getattr(autoseg, name) for name in autoseg.__all__}
    return {name: list_arguments(function) for name, function in functions.items() if inspect.isfunction(function)}


def list_arguments(function) -> list[str]:
    """The names of the arguments of a function."""
    return list(inspect.signature(function).parameters)


def test_commands_and_options_are_there() -> None:
    """With their names and types; no new one must be given, and one that took a value may take several."""
    present = describe_commands()
    for command, before in RECORDED["commands"].items():
        now = present[command]
        arguments = [one for one in now if not one["names"]]
        counterparts = []
        for one in before:
            name = one["names"]
            options = [other for other in now if name and set(name) <= set(other["names"])]
            same = options if name else arguments[:1]
            assert same, (command, name)
            counterparts += same
            arguments = arguments if name else arguments[1:]
            assert same[0]["type"] in (one["type"], f"list[{one['type']}]"), (command, name)  # also several values
            assert one["required"] or not same[0]["required"], (command, name)
        assert not [one for one in now if one["required"] and one not in counterparts], command


def test_version_is_told() -> None:
    """By the only option that stands before a command."""
    result = CliRunner().invoke(app, ["--version"])
    assert result.output.split() == ["autoseg", autoseg.__version__]


def test_functions_and_their_arguments_are_there() -> None:
    """Of the public ones, by name."""
    assert [name for name in RECORDED["names"] if not hasattr(autoseg, name)] == []
    for function, arguments in RECORDED["functions"].items():
        assert set(arguments) <= set(list_arguments(getattr(autoseg, function))), function
