"""The demo: every command, one after the other, on a small dataset that is made on the spot."""

from collections.abc import Callable
from pathlib import Path

from autoseg.cli import app
from autoseg.cli.terminal import console
from autoseg.demo import make_demo_dataset
from autoseg.workspace import Workspace

NUMBER = 1
CONFIGURATION = "3d_fullres"
TRAINING_TIME = "75s"


def demonstrate(workspace: Path, device: str) -> None:
    """Runs the demo in a folder; what is there from an earlier run is kept and used.

    Raises:
        AutosegError: The folder cannot be written, or the device is not there.
    """
    source = workspace / "source" / "Dataset001_Demo"
    if not source.exists():
        console.print(f"making twelve scans with four organs: {source}", markup=False)
        make_demo_dataset(source)
    folders = Workspace(root=workspace).folders(source.name)
    model = folders.model(CONFIGURATION)
    masks = workspace / "masks"
    options, where = f"-d {NUMBER}", f"-w {workspace}"

    steps: list[tuple[str, Callable[[], None]]] = [
        (
            f"check {options} {where}",
            lambda: app.check(NUMBER, workspace=workspace),
        ),
        (
            f"plan_and_preprocess {options} -c {CONFIGURATION} --preset small {where}",
            lambda: app.plan_and_preprocess_command(
                NUMBER, configurations=[CONFIGURATION], preset="small", workspace=workspace
            ),
        ),
        (
            f"train {options} -c {CONFIGURATION} -f 0 --budget {TRAINING_TIME} {where}",
            lambda: app.train_command(
                NUMBER, CONFIGURATION, ["0"], budget=TRAINING_TIME, device=device, workspace=workspace
            ),
        ),
        (
            f"predict {options} -i {folders.raw / 'imagesTs'} -o {masks} {where}",
            lambda: app.predict_command(
                folders.raw / "imagesTs", masks, number=NUMBER, device=device, workspace=workspace
            ),
        ),
        (
            f"evaluate {folders.raw / 'labelsTr'} {model.validation(0)}",
            lambda: app.evaluate_command(folders.raw / "labelsTr", model.validation(0)),
        ),
    ]
    if not folders.raw.exists():
        importing = (
            f"import {source} {options} {where}",
            lambda: app.import_command(source, NUMBER, workspace=workspace),
        )
        steps.insert(0, importing)
    for command, run in steps:
        console.print(f"\n$ autoseg {command}", style="bold", markup=False)
        run()
    console.print(f"\npicture of the worst held-out case: {model.validation(0) / 'overlay_worst.png'}", markup=False)
    console.print("next, your own data: autoseg import SOURCE -d 2", markup=False)
