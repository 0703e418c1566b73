"""The commands about scores, as functions of their options; see `commands`."""

from pathlib import Path
from typing import Annotated

import typer


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
    from autoseg.pipeline import evaluate

    summary = evaluate(reference, prediction, tolerance_mm=tolerance, reporter=Terminal())
    print_scores(summary, title="1 case" if len(summary.cases) == 1 else f"{len(summary.cases)} cases")
    console.print(f"also in {prediction / 'summary.json'} and summary.csv")


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
    from autoseg.comparison import check_ending, compare_runs, save_comparison

    if output is not None:
        check_ending(output)
    comparison = compare_runs(first, second)
    print_comparison(comparison)
    if output is not None:
        save_comparison(comparison, output)
        console.print(f"also in {output}")
