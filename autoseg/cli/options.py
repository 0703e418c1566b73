"""Options that several commands share, with one meaning and one help text each."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.errors import UsageError

if TYPE_CHECKING:
    from autoseg.workspace import Fold

DatasetNumber = Annotated[int, typer.Option("-d", "--dataset", help="Number of the dataset, 4 for Dataset004_Name.")]
WorkspacePath = Annotated[
    Path | None,
    typer.Option(
        "-w", "--workspace", help="Folder with raw/, preprocessed/ and results/. [default: AUTOSEG_WORKSPACE or here]"
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Skip = Annotated[list[str] | None, typer.Option("--skip", help="Cases to leave out, by name.", metavar="CASE...")]


def parse_folds(values: list[str]) -> "list[Fold]":
    """Fold names as typed: numbers, "all", or "cv" for 0 to 4.

    Raises:
        UsageError: A value is none of these.
    """
    folds: list[Fold] = []
    for value in values:
        if value == "cv":
            folds += range(5)
        elif value == "all":
            folds.append("all")
        elif value.isdigit():
            folds.append(int(value))
        else:
            raise UsageError(f"{value!r} is no fold", "take numbers from 0 to 4, 'cv' for all five, or 'all'")
    return list(dict.fromkeys(folds))
