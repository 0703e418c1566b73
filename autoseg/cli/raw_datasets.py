"""The commands that bring a dataset into the workspace, and check it."""

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli.command import EXIT_ERROR
from autoseg.cli.options import DatasetNumber, Skip, WorkspacePath


def import_dataset(
    source: Annotated[
        Path, typer.Argument(help="A Decathlon or nnU-Net folder, or a folder of images.", metavar="SOURCE")
    ],
    number: DatasetNumber,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Folder of masks, if SOURCE holds images only.", metavar="FOLDER")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name for the dataset. [default: as SOURCE says]", metavar="NAME")
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Copy nothing: the new dataset.json says where the files are.")
    ] = False,
    geometry: Annotated[
        str,
        typer.Option("--geometry", help="Masks lie where their header says: own; or on their image: image."),
    ] = "own",
    workspace: WorkspacePath = None,
) -> None:
    """Brings a dataset into the workspace.

    With -d 4 it becomes raw/Dataset004_Name: images as CASE_0000.nii.gz in imagesTr, masks as CASE.nii.gz in labelsTr.
    SOURCE is left as it is.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import import_dataset

    dataset = import_dataset(
        source,
        number,
        labels=labels,
        name=name,
        link=link,
        geometry=geometry,
        workspace=workspace,
        reporter=Terminal(),
    )
    console.print(f"{dataset.folder}: {len(dataset.cases)} cases")
    for problem in dataset.problems:
        console.print(f"left out: {problem}")


def check(number: DatasetNumber, skip: Skip = None, workspace: WorkspacePath = None) -> None:
    """Lists all that is wrong with a dataset."""
    from autoseg.cli.terminal import Terminal, print_table
    from autoseg.pipeline import check
    from autoseg.workspace import find_workspace

    problems = check(number, skip=skip or (), workspace=workspace, reporter=Terminal())
    if not problems:
        return
    dataset_name = find_workspace(workspace).dataset(number).raw.name
    rows = [(problem.case or "–", problem.what, problem.fix) for problem in problems]  # noqa: RUF001
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    print_table(f"{dataset_name}: {count}", ("case", "problem", "what to do"), rows)
    raise typer.Exit(EXIT_ERROR)
