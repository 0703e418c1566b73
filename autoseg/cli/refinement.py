"""The command that brings corrected masks back into a dataset, and lets its folds learn from them."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.options import DatasetNumber, Device, PlanName, WorkspacePath, parse_folds


def refine(
    number: DatasetNumber,
    source: Annotated[
        Path | None,
        typer.Option(
            "-i",
            "--input",
            help="Folder of corrected masks, named like cases or scans. [default: go on with the last corrections]",
            metavar="FOLDER",
        ),
    ] = None,
    scans: Annotated[
        Path | None,
        typer.Option(
            "--scans",
            help="Folder of the scans that are not in the dataset yet. [default: its imagesTs]",
            metavar="FOLDER",
        ),
    ] = None,
    machine: Annotated[
        Path | None,
        typer.Option(
            "--machine",
            help="Folder of the masks before they were corrected, from 'autoseg predict', to record what was changed.",
            metavar="FOLDER",
        ),
    ] = None,
    configuration: Annotated[
        str | None,
        typer.Option(
            "-c", "--configuration", help="Which goes on. [default: the only one that is trained]", metavar="NAME"
        ),
    ] = None,
    folds: Annotated[
        list[str] | None,
        typer.Option("-f", "--fold", help="Which go on. [default: all that are trained]", metavar="FOLD..."),
    ] = None,
    extend: Annotated[
        str | None,
        typer.Option(
            "--extend",
            help="How long each fold goes on: 50 more epochs, or a time: 50, 30m. [default: a tenth of its length]",
            metavar="EPOCHS|TIME",
        ),
    ] = None,
    no_training: Annotated[
        bool, typer.Option("--no-training", help="Only bring the masks back; train later with this command.")
    ] = False,
    device: Device = "auto",
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Brings corrected masks back into the dataset, and trains the folds on.

    The masks of before stay in the dataset's folder 'revisions', with a record of what was corrected, and the folds as
    they were stay in the model's folder 'before_revision_1'. Only changed cases are prepared again. Cases that were
    held out stay held out. Run it again to go on after a stop.
    """
    from autoseg.cli.score_tables import print_scores
    from autoseg.cli.terminal import Terminal
    from autoseg.pipeline import refine

    refinement = refine(
        number,
        source,
        scans=scans,
        machine=machine,
        configuration=cast("Any", configuration),
        folds=parse_folds(folds) if folds else (),
        extend=extend,
        training=not no_training,
        device=device,
        plan_name=plan_name,
        workspace=workspace,
        reporter=Terminal(),
    )
    if refinement.summary is not None:
        print_scores(refinement.summary, title="held-out cases of all trained folds")
