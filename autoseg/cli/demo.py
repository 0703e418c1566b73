"""The demo: the commands of a whole project, run one after the other on a small synthetic dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli import datasets, prediction, raw_datasets, scores, training
from autoseg.cli.options import Device
from autoseg.errors import ModelError, UsageError

if TYPE_CHECKING:
    from autoseg.evaluation.summary import Summary
    from autoseg.workspace import ModelFolder

NUMBER = 1
CONFIGURATION = "3d_fullres"
EPOCHS = 14
"""Number of epochs of the training. It is a number of steps and no time, so that a slow or busy machine takes longer
and learns the same. Decision: with each of five seeds every organ of the held-out cases then exceeds 0.9, and less work
already gave 0.85; the figures are in tests/benchmarks/RESULTS.md."""

LEAST_DICE = 0.7
"""Dice of an organ in a held-out case below which the demo counts it as lost. Decision: between 0, the Dice of an organ
that was not learned, and 0.85, which every organ exceeded with every seed that was tried."""


def demo(
    workspace: Annotated[Path, typer.Option("-w", "--workspace", help="Where to put it.", metavar="FOLDER")] = Path(
        "autoseg_demo"
    ),
    device: Device = "auto",
) -> None:
    """Takes a small made-up dataset through it all.

    Needs about three minutes on two cores, longer on slower ones; ends with a table of Dice and a picture. What is
    there from an earlier run is kept and used. If an organ was not learned, it says so and ends with exit code 2.
    """
    from autoseg.cli.terminal import console
    from autoseg.evaluation.summary import Summary, summary_file
    from autoseg.pipeline import make_demo_dataset
    from autoseg.workspace import Workspace

    source = workspace / "source" / "Dataset001_Demo"
    model = Workspace(root=workspace).folders(source.name).model(CONFIGURATION)
    check_earlier_run(model, workspace)
    console.print("this takes about three minutes on two cores, longer on slower or busier ones")
    if not source.exists():
        console.print(f"making twelve scans with four organs: {source}")
        make_demo_dataset(source)
    for command, run in _steps(workspace, source, device):
        console.print(f"\n$ autoseg {command}", style="bold")
        run()
    console.print(f"\npicture of the worst held-out case: {model.overlay(0, 'worst')}")
    check_organs(Summary.load(summary_file(model.validation(0))), model, workspace)
    console.print("next, your own data: autoseg import SOURCE -d 2")


def _steps(workspace: Path, source: Path, device: Device) -> list[tuple[str, Callable[[], None]]]:
    """Returns each command as a user would type it, without "autoseg", and a function that runs it."""
    from autoseg.datasets.dataset import TEST_IMAGES, TRAINING_LABELS
    from autoseg.workspace import Workspace

    folders = Workspace(root=workspace).folders(source.name)
    labels, held_out = folders.raw / TRAINING_LABELS, folders.model(CONFIGURATION).validation(0)
    scans, masks = folders.raw / TEST_IMAGES, workspace / "masks"
    options, where = f"-d {NUMBER}", f"-w {workspace}"
    steps: list[tuple[str, Callable[[], None]]] = [
        (
            f"check {options} {where}",
            lambda: raw_datasets.check(number=NUMBER, workspace=workspace),
        ),
        (
            f"plan_and_preprocess {options} -c {CONFIGURATION} --preset small {where}",
            lambda: datasets.plan_and_preprocess(
                NUMBER, configurations=[CONFIGURATION], preset="small", workspace=workspace
            ),
        ),
        (
            f"train {options} -c {CONFIGURATION} -f 0 --epochs {EPOCHS} {where}",
            lambda: training.train(NUMBER, [CONFIGURATION], ["0"], epochs=EPOCHS, device=device, workspace=workspace),
        ),
        (
            f"predict {options} -i {scans} -o {masks} {where}",
            lambda: prediction.predict(scans, masks, number=NUMBER, device=device, workspace=workspace),
        ),
        (
            f"evaluate {labels} {held_out}",
            lambda: scores.evaluate(labels, held_out),
        ),
    ]
    if not folders.raw.exists():
        importing = (
            f"import {source} {options} {where}",
            lambda: raw_datasets.import_dataset(source, NUMBER, workspace=workspace),
        )
        steps.insert(0, importing)
    return steps


def check_earlier_run(model: "ModelFolder", workspace: Path) -> None:
    """Makes sure that a training which an earlier run of the demo began has the length of this one.

    Earlier versions trained for 75 seconds, and a user may have trained longer by hand.

    Args:
        model: Model folder of the demo, whether it exists or not.
        workspace: Folder of the demo, for the message.

    Raises:
        UsageError: The training was begun with another length.
        ModelError: The checkpoint is damaged.
    """
    if not model.checkpoint(0).exists():
        return
    from autoseg.models.checkpoint import load_checkpoint

    begun = load_checkpoint(model.checkpoint(0)).plan.training
    if (begun.epochs, begun.budget_seconds) != (EPOCHS, None):
        length = f"{begun.epochs} epochs" if begun.budget_seconds is None else f"{begun.budget_seconds:g} seconds"
        raise UsageError(
            f"{workspace} holds a demo that an earlier version, or its user, trained for {length} instead of {EPOCHS} "
            "epochs",
            "remove that folder, or choose another with -w",
        )


def check_organs(summary: "Summary", model: "ModelFolder", workspace: Path) -> None:
    """Makes sure that every organ of every held-out case was learned.

    Args:
        summary: Scores of the held-out cases.
        model: Model folder of the demo, for the message.
        workspace: Folder of the demo, for the message.

    Raises:
        ModelError: A Dice is below `LEAST_DICE`; the message names each such organ and case.
    """
    lost = [
        f"{label} of {case.name} (Dice {scores.dice:.3f})"
        for case in summary.cases
        for label, scores in case.scores.items()
        if scores.dice < LEAST_DICE
    ]
    if lost:
        more = f"autoseg train -d {NUMBER} -c {CONFIGURATION} -f 0 --extend {EPOCHS} -w {workspace}"
        raise ModelError(
            f"organs were not learned: {', '.join(lost)}",
            f"look at {model.overlay(0, 'worst')} and the curves in {model.progress(0, 'png')}, and train longer: "
            f"{more}",
        )
