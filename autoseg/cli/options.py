"""Options that several commands share, with one meaning and one help text each."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.errors import UsageError

if TYPE_CHECKING:
    from autoseg.workspace import Fold

DatasetNumber = Annotated[
    int,
    typer.Option(
        "-d", "--dataset", min=1, max=999, help="Number of the dataset: 4 for Dataset004_Name.", metavar="NUMBER"
    ),
]
WorkspacePath = Annotated[
    Path | None,
    typer.Option(
        "-w",
        "--workspace",
        help="Folder with raw/, preprocessed/ and results/. [default: $AUTOSEG_WORKSPACE, or the current folder]",
        metavar="FOLDER",
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", help="auto (the fastest there is), cpu, cuda, cuda:1 or mps.", metavar="DEVICE"),
]
Configurations = Annotated[
    list[str] | None,
    typer.Option("-c", "--configuration", help="2d, 3d_fullres or both. [default: all of the plan]", metavar="NAME..."),
]
Skip = Annotated[list[str] | None, typer.Option("--skip", help="Names of cases to leave out.", metavar="CASE...")]


def parse_folds(values: list[str]) -> "list[Fold]":
    """Fold names as typed: numbers, "all", or "cv", which stands for each number that splits.json has.

    Raises:
        UsageError: A value is none of these.
    """
    folds: list[Fold] = []
    for value in values:
        if value in ("all", "cv"):
            folds.append(value)
        elif value.isdecimal():
            folds.append(int(value))
        else:
            raise UsageError(f"{value!r} is no fold", "take numbers from 0 to 4, 'cv' for each of them, or 'all'")
    return list(dict.fromkeys(folds))
