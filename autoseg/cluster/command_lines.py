"""Command lines of this program, as jobs run them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAM = (sys.executable, "-m", "autoseg")
"""The command line of this program, in the environment in which it runs now."""

OptionValue = str | int | bool | Path | Sequence[str] | None


def list_options(options: Mapping[str, OptionValue]) -> tuple[str, ...]:
    """Returns options as arguments of a command line; an option with no value, or that is off, is left out.

    >>> list_options({"--epochs": 5, "--exact": True, "--restart": False, "--log": ["mlflow"], "--init": None})
    ('--epochs=5', '--exact', '--log=mlflow')
    """
    arguments: list[str] = []
    for name, value in options.items():
        if value is True:
            arguments.append(name)
        elif isinstance(value, str | int | Path) and value is not False:
            arguments.append(f"{name}={value}")
        elif value:
            arguments += [f"{name}={entry}" for entry in value]
    return tuple(arguments)


def count_gpus(device: str, gpus: int | None) -> int | None:
    """Returns how many GPUs a command uses: none on the CPU, else as many as were asked for; None if nobody asked.

    >>> count_gpus("cpu", None), count_gpus("auto", 2), count_gpus("auto", None)
    (0, 2, None)
    """
    return 0 if device == "cpu" else gpus
