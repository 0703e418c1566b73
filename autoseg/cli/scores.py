"""The commands that evaluate segmentations, compare runs, and find the best configuration."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from autoseg.cli.options import DatasetNumber, Device, PlanName, WorkspacePath
from autoseg.errors import WriteError

if TYPE_CHECKING:
    from autoseg.models.best_model import BestModel


def evaluate(
    reference: Annotated[Path, typer.Argument(help="Folder of reference label maps, or one.", metavar="REFERENCE")],
    prediction: Annotated[
        Path, typer.Argument(help="Folder of segmentations with the same names, or one.", metavar="PREDICTION")
    ],
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", help="How far surfaces may be apart for the surface Dice (NSD).", metavar="MM"),
    ] = 1.0,
    centrelines: Annotated[
        bool, typer.Option("--centrelines", help="Also measure the centreline Dice, of vessels; it takes a while.")
    ] = False,
    missing: Annotated[
        str,
        typer.Option("--missing", help="References without a segmentation: skip; count them as zero; or fail."),
    ] = "skip",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the files. [default: that of PREDICTION]", metavar="FOLDER"),
    ] = None,
) -> None:
    """Compares segmentations with references.

    Prints Dice per case and label, and the means of all metrics: overlap, distances of surfaces, lesions, volumes.
    Writes summary.json and summary.csv beside the segmentations. Labels are named as in the dataset.json in or beside
    REFERENCE, if there is one.
    """
    from autoseg.cli.score_tables import print_scores
    from autoseg.cli.terminal import Terminal, console
    from autoseg.evaluation.summary import summary_file, summary_folder
    from autoseg.pipeline import evaluate
    from autoseg.runtime.writable import check_place

    if output is not None:
        check_place(output / "summary.json")
    summary = evaluate(
        reference,
        prediction,
        tolerance_mm=tolerance,
        centrelines=centrelines,
        missing=missing,
        save=False,
        reporter=Terminal(),
    )
    print_scores(summary, title="1 case" if len(summary.cases) == 1 else f"{len(summary.cases)} cases")
    folder = summary_folder(prediction, output)
    if folder is not None:  # the scores are on the screen, whether the folder can be written or not
        try:
            summary.write(folder)
        except WriteError as error:
            raise WriteError(error.what, f"{error.fix}, and name it with -o") from error
        console.print(f"also in {summary_file(folder)} and summary.csv")


def compare(
    first: Annotated[
        Path, typer.Argument(help="A summary.json, or a folder that holds one: masks or a model.", metavar="RUN_A")
    ],
    second: Annotated[Path, typer.Argument(help="Another, of the same cases.", metavar="RUN_B")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A .csv or .json file for the comparison.", metavar="FILE")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="A page (.html) of the differences, with pictures of cases.", metavar="FILE"),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(
            "-d",
            "--dataset",
            min=1,
            max=999,
            help="Number of the dataset whose scans the page shows. [default: that of the models]",
            metavar="NUMBER",
        ),
    ] = None,
    workspace: WorkspacePath = None,
) -> None:
    """Compares the scores of two runs, case by case.

    Prints the mean difference of each metric and label with its confidence interval, a p value, and how many cases got
    better or worse. Cases that only one of the runs has are named and left out. With --report also writes a page for
    the browser: the worst and the best changes with pictures, and every case, sortable and searchable.
    """
    from autoseg.cli.score_tables import print_comparison
    from autoseg.cli.terminal import Terminal, console
    from autoseg.pipeline import compare

    comparison = compare(
        first, second, output=output, report=report, number=number, workspace=workspace, reporter=Terminal()
    )
    print_comparison(comparison)
    if report is not None:
        console.print(f"report: {report}")
    if output is not None:
        console.print(f"also in {output}")


MOST_LABELS = 4
"""Number of labels up to which each has a column in the table of candidates. Decision: more do not fit."""


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
    metric: Annotated[
        str, typer.Option("--metric", help="What decides: dice, nsd, or lesion_f1 for small lesions.", metavar="NAME")
    ] = "dice",
    device: Device = "auto",
    plan_name: PlanName = None,
    workspace: WorkspacePath = None,
) -> None:
    """Finds the best of what was trained.

    Compares all configurations that are trained with -f cv, and all pairs of them, on the held-out cases, and tries
    which postprocessing helps the best. From then on 'autoseg predict -d' goes by that. What was trained by plans
    beside the usual one, or taken over from nnU-Net, takes part as PLAN/CONFIGURATION; --plan compares one plan alone.
    """
    from autoseg.cli.terminal import Terminal, console, suggest_report
    from autoseg.pipeline import find_best
    from autoseg.workspace import find_workspace

    best = find_best(
        number,
        configurations=cast("Any", configurations),
        ensembles=not no_ensembles,
        metric=metric,
        device=device,
        plan_name=plan_name,
        workspace=workspace,
        reporter=Terminal(),
    )
    folders = find_workspace(workspace).dataset(number, plan_name)
    _print_candidates(best)
    for trial in best.rules.evidence:
        console.print(f"- {trial.describe()}")
    console.print(best.rules.describe())
    console.print(f"{folders.best_model}: 'autoseg predict -d {number}{folders.plan_option}' goes by it")
    suggest_report("model", "-d", number, **{"--plan": plan_name, "-w": workspace})


def _print_candidates(best: "BestModel") -> None:
    """Prints a row per candidate: its Dice, the metric that decided, and why it was chosen or not."""
    from autoseg.cli.terminal import console, print_table
    from autoseg.evaluation.repeats import describe_repeats
    from autoseg.evaluation.scores import METRICS

    labels = list(best.candidates[0].dice)
    shown = labels if len(labels) <= MOST_LABELS else []
    rows = [
        (
            f"{'* ' if candidate.chosen else '  '}{candidate.name}",
            *(_four_digits(candidate.dice[label]) for label in shown),
            _four_digits(candidate.mean_dice),
            *(() if candidate.score is None else (_four_digits(candidate.score),)),
            candidate.reason,
        )
        for candidate in best.candidates
    ]
    title = f"{best.dataset}, {best.candidates[0].cases} held-out cases: mean Dice"
    compared = () if best.metric == "dice" else (f"mean {METRICS[best.metric].title}",)
    print_table(title, ("", *shown, "mean" if shown else f"mean of {len(labels)} labels", *compared, ""), rows)
    for candidate in best.candidates:
        if candidate.repeats:
            console.print(f"{candidate.name}: {describe_repeats(candidate.repeats)}")


def _four_digits(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"  # noqa: RUF001
