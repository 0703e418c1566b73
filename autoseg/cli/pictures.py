"""The command that draws training patches, as a function of its options; see `commands`."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.options import DatasetNumber, PlanName, WorkspacePath


def augmentations(
    number: DatasetNumber,
    configuration: Annotated[
        str, typer.Option("-c", "--configuration", help="2d, 3d_fullres or 3d_lowres; prepared.", metavar="NAME")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture, a PNG file.", metavar="FILE")],
    count: Annotated[int, typer.Option("--count", help="How many changed patches.", metavar="NUMBER")] = 24,
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Draws patches as training sees them.

    A picture of up to four patches as they are, and beside each what random changes by plan.json may make of it, with
    outlines of the labels.
    """
    from autoseg.cli.terminal import console
    from autoseg.patch_pictures import draw_augmentations

    path = draw_augmentations(
        number, cast("Any", configuration), output, count=count, plan_name=plan_name, workspace=workspace
    )
    console.print(f"{count} changed patches: {path}")
