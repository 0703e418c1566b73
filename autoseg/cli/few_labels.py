"""The commands for datasets of few labels: labels that a model makes, and suggestions what to label next."""

import math
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from autoseg.cli.options import Budget, DatasetNumber, Device, Epochs, PlanName, WorkspacePath

Scans = Annotated[
    Path, typer.Option("-i", "--input", help="Folder of scans without labels, or one scan.", metavar="PATH")
]
Configuration = Annotated[
    str | None,
    typer.Option("-c", "--configuration", help="Whose folds. [default: the one that is trained]", metavar="NAME"),
]


def pseudo_label(
    number: DatasetNumber,
    source: Scans,
    configuration: Configuration = None,
    new_number: Annotated[
        int | None,
        typer.Option(
            "--as",
            min=1,
            max=999,
            help="Number of the dataset of the first round. [default: the next free one]",
            metavar="NUMBER",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="The folds of each round label for the next.", metavar="NUMBER")
    ] = 1,
    least_dice: Annotated[
        float | None,
        typer.Option(
            "--least-dice",
            help="Dice that is asked for of labels, 0 to 1. [default: the median of the held-out cases]",
            metavar="DICE",
        ),
    ] = None,
    no_training: Annotated[
        bool, typer.Option("--no-training", help="Label and prepare the new dataset, and train nothing.")
    ] = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Begin with random weights, not with those of the same fold.")
    ] = False,
    epochs: Epochs = None,
    budget: Budget = None,
    device: Device = "auto",
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Lets the trained folds label scans, and trains them on with the labels on which they agree.

    What is kept is chosen on the held-out cases, whose true Dice is known. The labelled cases and the scans that are
    kept become a new dataset, whose dataset.json says which cases a model has labelled; no fold holds those out. Its
    folds are those of before. Run it again after a stop and it goes on. See 'autoseg guide difficult_data'.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import pseudo_label

    outcomes = pseudo_label(
        number,
        source,
        configuration=cast("Any", configuration),
        new_number=new_number,
        rounds=rounds,
        least_dice=least_dice,
        training=not no_training,
        from_scratch=from_scratch,
        epochs=epochs,
        budget=budget,
        device=device,
        plan_name=plan_name,
        workspace=workspace,
        reporter=Terminal(),
    )
    for outcome in outcomes:
        kept = f"{len(outcome.record.kept)} of {len(outcome.record.scans)} scans"
        console.print(f"{outcome.dataset.folder}: labelled cases and {kept}; pseudo_labels.json says why")
    if no_training:
        [outcome] = outcomes
        new = int(outcome.dataset.name[len("Dataset") :].partition("_")[0])
        console.print(f"ready; next: autoseg train -d {new} -c {outcome.record.configuration} -f cv")


def suggest(
    number: DatasetNumber,
    source: Scans,
    count: Annotated[int, typer.Option("--count", min=1, help="How many scans to suggest.", metavar="NUMBER")] = 20,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The table as .csv, or everything as .json.", metavar="FILE"),
    ] = None,
    configuration: Configuration = None,
    device: Device = "auto",
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Suggests which scans to label next.

    Scans on which the trained folds disagree, and that are unlike each other and the labelled cases. For each the share
    of voxels that is expected to need correction in the segmentation of the model.
    """
    from autoseg.cli.terminal import Terminal, console, print_table
    from autoseg.pipeline import suggest

    suggestions = suggest(
        number,
        source,
        count=count,
        output=output,
        configuration=cast("Any", configuration),
        device=device,
        plan_name=plan_name,
        workspace=workspace,
        reporter=Terminal(),
    )
    rows = [
        (str(scan.rank), scan.case, *map(_number, (scan.disagreement, scan.share_to_correct, scan.distance)))
        for scan in suggestions.suggestions
    ]
    title = f"{len(rows)} of {suggestions.scans} scans to label next"
    print_table(title, ("", "scan", "disagreement", "share to correct", "distance"), rows)
    if suggestions.suggestions:
        folder = Path(suggestions.suggestions[0].segmentation).parent
        console.print(f"segmentations that may be corrected: {folder}")
    if output is not None:
        console.print(f"also in {output}")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"  # noqa: RUF001
