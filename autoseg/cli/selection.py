"""The command that chooses among trained configurations, as a function of its options; see `commands`."""

import math
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from autoseg.cli.options import DatasetNumber, Device, PlanName, WorkspacePath

if TYPE_CHECKING:
    from autoseg.choice import Choice

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
    from autoseg.pipeline import find_best
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
    console.print(f"{folders.choice}: 'autoseg predict -d {number}{folders.plan_option}' goes by it")


def _print_candidates(choice: "Choice") -> None:
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
