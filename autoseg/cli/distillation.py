"""The command that trains a student."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.options import (
    Budget,
    DatasetNumber,
    Device,
    Epochs,
    Mirroring,
    ModelPath,
    PlanName,
    TrainedConfiguration,
    WorkspacePath,
    parse_folds,
)


def distil(
    number: DatasetNumber,
    name: Annotated[
        str, typer.Option("--for", help="Name of the student's plan, after what it is for.", metavar="NAME")
    ] = "laptop",
    model: ModelPath = None,
    configuration: TrainedConfiguration = None,
    folds: Annotated[
        list[str] | None,
        typer.Option("-f", "--fold", help="Folds of the student: 0 to 4, cv, or all. [default: cv]", metavar="FOLD..."),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option("-i", "--input", help="Folder of scans without labels to learn from as well.", metavar="FOLDER"),
    ] = None,
    work: Annotated[
        float,
        typer.Option(
            "--work",
            help="Most multiply-adds for a typical image, as a share of those of one fold of the teacher without "
            "mirror images.",
            metavar="SHARE",
        ),
    ] = 1 / 3,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            help="Most seconds for a typical image on this machine's processor, from the start of predict to its end.",
            metavar="SECONDS",
        ),
    ] = None,
    memory: Annotated[
        str, typer.Option("--memory", help="Most memory for a typical image: 4GB, 800MB.", metavar="SIZE")
    ] = "4GB",
    weight: Annotated[
        float,
        typer.Option(
            "--weight", help="Share of the loss that compares with the teacher, the rest with labels.", metavar="SHARE"
        ),
    ] = 0.1,
    mirroring: Mirroring = None,
    epochs: Epochs = None,
    budget: Budget = None,
    device: Device = "auto",
    restart: Annotated[
        bool, typer.Option("--restart", help="Plan anew, and forget what was trained of these folds of this student.")
    ] = False,
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Trains a small network on what a trained model says.

    The student has a plan of its own, so 'predict -d 4 --plan laptop', find_best, export and reports take it like any
    other. Each fold learns from the teacher's networks of the same fold alone, so its Dice on held-out cases is honest.
    Spacing, width and tiles of the network follow from --work, --seconds and --memory. Run it again to go on after a
    stop. See 'autoseg guide distillation'.
    """
    from autoseg.cli.score_tables import print_scores
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import distil
    from autoseg.workspace import find_workspace

    summary = distil(
        number,
        name=name,
        model=model,
        configuration=cast("Any", configuration),
        plan_name=plan_name,
        folds=parse_folds(folds or ["cv"]),
        unlabelled=unlabelled,
        work=work,
        seconds=seconds,
        memory=memory,
        weight=weight,
        mirroring=mirroring,
        epochs=epochs,
        budget=budget,
        device=device,
        restart=restart,
        workspace=workspace,
        reporter=Terminal(),
    )
    if summary is not None:
        print_scores(summary, title="held-out cases of all trained folds of the student")
    models = find_workspace(workspace).dataset(number, name).models
    console.print(f"student: {models}; use it: autoseg predict -d {number} --plan {name} -i scans/ -o masks/")
