"""The demo: the commands of a whole project, run one after the other on a small synthetic dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import datasets, prediction, raw_datasets, scores, training
from autoseg.cli.options import Device

NUMBER = 1
CONFIGURATION = "3d_fullres"
TRAINING_TIME = "75s"


def demo(
    workspace: Annotated[Path, typer.Option("-w", "--workspace", help="Where to put it.", metavar="FOLDER")] = Path(
        "autoseg_demo"
    ),
    device: Device = "auto",
) -> None:
    """Takes a small made-up dataset through it all.

    Needs about three minutes on two cores; ends with a table of Dice and a picture. What is there from an earlier run
    is kept and used.
    """
    from autoseg.cli.terminal import console
    from autoseg.datasets.dataset import TEST_IMAGES, TRAINING_LABELS
    from autoseg.pipeline import make_demo_dataset
    from autoseg.workspace import Workspace

    source = workspace / "source" / "Dataset001_Demo"
    if not source.exists():
        console.print(f"making twelve scans with four organs: {source}")
        make_demo_dataset(source)
    folders = Workspace(root=workspace).folders(source.name)
    model = folders.model(CONFIGURATION)
    masks = workspace / "masks"
    options, where = f"-d {NUMBER}", f"-w {workspace}"

    steps: list[tuple[str, Callable[[], None]]] = [
        (
            f"check {options} {where}",
            lambda: raw_datasets.check(NUMBER, workspace=workspace),
        ),
        (
            f"plan_and_preprocess {options} -c {CONFIGURATION} --preset small {where}",
            lambda: datasets.plan_and_preprocess(
                NUMBER, configurations=[CONFIGURATION], preset="small", workspace=workspace
            ),
        ),
        (
            f"train {options} -c {CONFIGURATION} -f 0 --budget {TRAINING_TIME} {where}",
            lambda: training.train(
                NUMBER, CONFIGURATION, ["0"], budget=TRAINING_TIME, device=device, workspace=workspace
            ),
        ),
        (
            f"predict {options} -i {folders.raw / TEST_IMAGES} -o {masks} {where}",
            lambda: prediction.predict(
                folders.raw / TEST_IMAGES, masks, number=NUMBER, device=device, workspace=workspace
            ),
        ),
        (
            f"evaluate {folders.raw / TRAINING_LABELS} {model.validation(0)}",
            lambda: scores.evaluate(folders.raw / TRAINING_LABELS, model.validation(0)),
        ),
    ]
    if not folders.raw.exists():
        importing = (
            f"import {source} {options} {where}",
            lambda: raw_datasets.import_dataset(source, NUMBER, workspace=workspace),
        )
        steps.insert(0, importing)
    for command, run in steps:
        console.print(f"\n$ autoseg {command}", style="bold")
        run()
    console.print(f"\npicture of the worst held-out case: {model.overlay(0, 'worst')}")
    console.print("next, your own data: autoseg import SOURCE -d 2")
