"""The commands about scores, as functions of their options; see `commands`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from autoseg.cli.options import DatasetNumber, Device, PlanName, WorkspacePath

if TYPE_CHECKING:
    from autoseg.models.best_model import BestModel


def evaluate(
    reference: Annotated[Path, typer.Argument(help="Folder of reference label maps.", metavar="REFERENCE")],
    prediction: Annotated[
        Path, typer.Argument(help="Folder of segmentations with the same names.", metavar="PREDICTION")
    ],
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", help="How far surfaces may be apart for the surface Dice (NSD).", metavar="MM"),
    ] = 1.0,
) -> None:
    """Compares segmentations with references.

    Prints Dice per case and label, and the means of all metrics: overlap, distances of surfaces, lesions, volumes.
    Writes summary.json and summary.csv beside the segmentations. Labels are named as in the dataset.json in or beside
    REFERENCE, if there is one.
    """
    from autoseg.cli.score_tables import print_scores
    from autoseg.cli.terminal import Terminal, console
    from autoseg.evaluation.summary import summary_file
    from autoseg.pipeline.scores import evaluate

    summary = evaluate(reference, prediction, tolerance_mm=tolerance, reporter=Terminal())
    print_scores(summary, title="1 case" if len(summary.cases) == 1 else f"{len(summary.cases)} cases")
    console.print(f"also in {summary_file(prediction)} and summary.csv")


def compare(
    first: Annotated[
        Path, typer.Argument(help="A summary.json, or a folder that holds one: masks or a model.", metavar="RUN_A")
    ],
    second: Annotated[Path, typer.Argument(help="Another, of the same cases.", metavar="RUN_B")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A .csv or .json file for the comparison.", metavar="FILE")
    ] = None,
) -> None:
    """Compares the scores of two runs, case by case.

    Prints the mean difference of each metric and label with its confidence interval, a p value, and how many cases got
    better or worse. Cases that only one of the runs has are named and left out.
    """
    from autoseg.cli.score_tables import print_comparison
    from autoseg.cli.terminal import console
    from autoseg.evaluation.folders import check_ending, save_comparison
    from autoseg.pipeline.scores import compare_runs

    if output is not None:
        check_ending(output)
    comparison = compare_runs(first, second)
    print_comparison(comparison)
    if output is not None:
        save_comparison(comparison, output)
        console.print(f"also in {output}")


MOST_LABELS = 4
"""With a column each in the table of candidates. Decision: more do not fit beside the reason."""


def find_best(
    number: DatasetNumber,
    configurations: Annotated[
        list[str] | None,
        typer.Option(
            "-c", "--configuration", help="Which may be chosen. [default: all that are trained]", metavar="NAME..."
        ),
    ] = None,
    no_ensembles: Annotated[
        bool, typer.Option("--no-ensembles", help="Try no pairs, which predict in twice the time.")
    ] = False,
    device: Device = "auto",
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Finds the best of what was trained.

    Compares all configurations that are trained with -f cv, and all pairs of them, on the held-out cases, and tries
    which postprocessing helps the best. From then on 'autoseg predict -d' goes by that. What was trained by plans
    beside the usual one, or taken over from nnU-Net, takes part as PLAN/CONFIGURATION; --plan compares one plan alone.
    """
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline.scores import find_best
    from autoseg.workspace import find_workspace

    choice = find_best(
        number,
        configurations=cast("Any", configurations),
        ensembles=not no_ensembles,
        device=device,
        plan_name=plan_name,
        workspace=workspace,
        reporter=Terminal(),
    )
    folders = find_workspace(workspace).dataset(number, plan_name)
    _print_candidates(choice)
    for trial in choice.rules.evidence:
        console.print(f"- {trial.describe()}")
    console.print(choice.rules.describe())
    console.print(f"{folders.best_model}: 'autoseg predict -d {number}{folders.plan_option}' goes by it")


def _print_candidates(choice: "BestModel") -> None:
    """Prints a row per candidate: its Dice, and why it was chosen or not."""
    from autoseg.cli.terminal import print_table

    labels = list(choice.candidates[0].dice)
    shown = labels if len(labels) <= MOST_LABELS else []
    rows = [
        (
            f"{'* ' if one.chosen else '  '}{one.name}",
            *(_four_digits(one.dice[label]) for label in shown),
            _four_digits(one.mean_dice),
            one.reason,
        )
        for one in choice.candidates
    ]
    title = f"{choice.dataset}, {choice.candidates[0].cases} held-out cases: mean Dice"
    print_table(title, ("", *shown, "mean" if shown else f"mean of {len(labels)} labels", ""), rows)


def _four_digits(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"  # noqa: RUF001
