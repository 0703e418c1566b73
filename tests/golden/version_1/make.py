"""Made the workspace, the bundle and the predictions in this folder, at commit 7b480b6 with Python 3.11 and torch 2.13.

    OMP_NUM_THREADS=1 PYTHONPATH=.:tests:tests/golden/version_1 python tests/golden/version_1/make.py

It is kept to show how they were made. It uses modules as they were named at that commit, and need not run later.
"""

import json
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from unittest.mock import patch

from autoseg.imageio import read_label_map
from small_nnunet import write_held_out
from test_version_1 import PREDICTIONS
from tiny_workspaces import NUMBER, folders_of, write_splits, write_volumes
from typer.testing import CliRunner
from version_1_parts import describe_package

from autoseg.cli.app import app
from autoseg.errors import Stopped
from autoseg.pipeline import stop, train
from autoseg.training import loop, stopping

HERE = Path(__file__).parent
CASES = ("case_1", "case_2", "case_3", "case_4")
SPLITS = [(CASES[2:], CASES[:2]), (CASES[:2], CASES[2:])]
TRAINING = {
    "epochs": 1, "steps_per_epoch": 40, "validation_steps": 1, "learning_rate": 0.1, "momentum": 0.9,
    "average_decay": 0.0,
}  # fmt: skip
STOPPED = {"epochs": 2, "steps_per_epoch": 20, "average_decay": 0.9}
STOPPED_AT_STEP = 35
COARSE, CASCADE = "3d_lowres", "3d_cascade_fullres"


def run(command: str) -> str:
    """Runs a command as a user would."""
    result = CliRunner().invoke(app, command.split(), catch_exceptions=False)
    if result.exit_code:
        raise RuntimeError(result.output)
    return result.output


def pack(folder: Path, file: Path) -> None:
    """Packs all files of a folder but pictures."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".png":
                archive.write(path, path.relative_to(folder))


def network(residual: str, *, dimensions: int = 3, channels: int = 1) -> dict:
    """Two resolutions of eight features each."""
    convolutions = 2 if residual == "block" else 1
    flat, full, twos = [1, 3, 3][-dimensions:], [3] * dimensions, [2] * dimensions
    return {
        "residual": residual,
        "in_channels": channels,
        "out_channels": 3,
        "stages": [
            {"features": 8, "kernel": flat, "stride": [1] * dimensions, "convolutions": convolutions},
            {"features": 8, "kernel": full, "stride": twos, "convolutions": convolutions},
        ],
    }


def edit(root: Path, name: str | None, change) -> None:
    """Changes plan.json as a user would."""
    path = folders_of(root).with_plan(name).plan
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def make_usual(root: Path, seed: int) -> None:
    """Plans, prepares and trains four configurations, of which two are compared."""
    run(f"plan_and_preprocess -d {NUMBER} -w {root} --preset small -c 2d")

    def change(plan: dict) -> None:
        plan["training"] |= {**TRAINING, "seed": seed}
        both = plan["configurations"]
        both["2d"] |= {"architecture": network("stage", dimensions=2), "batch_size": 8}
        full = both["3d_fullres"] = {**both["3d_fullres"], "architecture": network("none")}
        both[COARSE] = {**full, "architecture": network("block"), "spacing_mm": [1.5, 1.5, 1.5]}
        both[CASCADE] = {**full, "architecture": network("stage", channels=3), "previous": COARSE}

    edit(root, None, change)
    run(f"preprocess -d {NUMBER} -w {root}")
    for name in ("2d", "3d_fullres", COARSE):
        run(f"train -d {NUMBER} -c {name} -f cv --device cpu -w {root}")
    run(f"train -d {NUMBER} -c {CASCADE} -f 0 --device cpu -w {root}")
    run(f"find_best -d {NUMBER} -c 2d 3d_fullres --device cpu -w {root}")


def make_stopped(root: Path) -> None:
    """A fold that was stopped in its second epoch."""
    run(f"plan -d {NUMBER} -w {root} --preset small --plan stopped")

    def change(plan: dict) -> None:
        plan["training"] |= TRAINING | STOPPED
        del plan["configurations"]["2d"]
        plan["configurations"]["3d_fullres"]["architecture"] = network("stage")

    edit(root, "stopped", change)
    run(f"preprocess -d {NUMBER} -w {root} --plan stopped")
    original = loop.train_step

    def step(state, *rest):
        if state.step == STOPPED_AT_STEP:
            stop(NUMBER, "3d_fullres", plan_name="stopped", workspace=root)
        return original(state, *rest)

    with patch.object(loop, "train_step", step), patch.object(stopping, "LOOK_SECONDS", 0.0):
        try:
            train(NUMBER, "3d_fullres", 0, plan_name="stopped", device="cpu", workspace=root)
        except Stopped:
            return
    raise RuntimeError("the run was not stopped")


def make_literature(root: Path) -> None:
    """A fold of a network of the literature."""
    run(f"plan -d {NUMBER} -w {root} --preset small --network unet:features=8,depth=2 --plan literature")
    edit(root, "literature", lambda plan: plan["training"].update({**TRAINING, "learning_rate": 0.003}))
    run(f"preprocess -d {NUMBER} -w {root} --plan literature")
    run(f"train -d {NUMBER} -c 2d -f 0 --device cpu -w {root} --plan literature")


def make_custom(root: Path) -> None:
    """A fold of a network, a loss and a transform that an installed package offers."""
    run(f"plan -d {NUMBER} -w {root} --preset small --plan custom")

    def change(plan: dict) -> None:
        plan["training"] |= {**TRAINING, "steps_per_epoch": 80}
        plan["training"]["loss"] = {"own": {"name": "version_1_cross_entropy", "settings": {"factor": 5.0}}}
        del plan["configurations"]["2d"]
        one = plan["configurations"]["3d_fullres"]
        one["network"] = {"name": "version_1_build_small", "settings": {"features": 8}}
        one["augmentation"]["own"] = [{"name": "version_1_brighten", "settings": {"most": 0.1}, "probability": 0.5}]

    edit(root, "custom", change)
    run(f"preprocess -d {NUMBER} -w {root} --plan custom")
    run(f"train -d {NUMBER} -c 3d_fullres -f 0 --device cpu -w {root} --plan custom")


def make_nnunet(root: Path, folder: Path) -> None:
    """The plain network, as nnU-Net would have left it, among the models of the dataset, with worse segmentations."""
    folders = folders_of(root)
    theirs = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    run(f"export {folders.model('3d_fullres').path} --format nnunet -o {theirs}")
    for fold, (_, held_out) in enumerate(SPLITS):
        masks = {case: read_label_map(folders.raw / "labelsTr" / f"{case}.nii.gz") for case in held_out}
        for mask in masks.values():
            mask.array[:4] = 0
        write_held_out(theirs, fold, masks)
    run(f"install_nnunet {theirs} -d {NUMBER} -w {root} --device cpu")


def remove_what_training_alone_needs(root: Path) -> None:
    """Keeps the archive small: of plans whose training is over, the prepared cases."""
    for name in ("literature", "custom", "nnunet"):
        for folder in (folders_of(root).preprocessed / name).glob("*d*/"):
            shutil.rmtree(folder)


def make_workspace(folder: Path, seed: int) -> Path:
    """Everything but predictions."""
    root = folder / "workspace"
    folders = write_volumes(root, shape=(12, 16, 16), cases=4)
    scans = folders.raw / "imagesTs"
    shutil.copy(folders.raw / "imagesTr" / "case_2_0000.nii.gz", scans / "case_6_0000.nii.gz")
    write_splits(root, SPLITS)
    make_usual(root, seed)
    make_stopped(root)
    make_literature(root)
    make_custom(root)
    make_nnunet(root, folder / "theirs")
    remove_what_training_alone_needs(root)
    return root


def make_predictions(root: Path, folder: Path) -> None:
    """What each model makes of a scan, exactly; and folders of which the second scan is still to be segmented."""
    scans = folders_of(root).raw / "imagesTs"
    one = scans / "case_5_0000.nii.gz"
    for name in ("best", "2d", "custom"):
        made = folder / "begun" / name
        run(f"predict -d {NUMBER} -w {root} {PREDICTIONS[name]} -i {one} -o {made} --exact --device cpu")
    for name, options in PREDICTIONS.items():
        made = folder / "made" / name
        run(f"predict -d {NUMBER} -w {root} {options} -i {one} -o {made} --exact --device cpu")
        (folder / "expected").mkdir(exist_ok=True)
        shutil.copy(made / "case_5.nii.gz", folder / "expected" / f"{name}.nii.gz")
    copy = shutil.copytree(root, folder / "resumed")
    options = f"-d {NUMBER} -w {copy} --plan stopped --device cpu"
    run(f"train {options} -c 3d_fullres -f 0")
    run(f"predict {options} -i {one} -o {folder / 'made' / 'resumed'} --exact")
    shutil.copy(folder / "made" / "resumed" / "case_5.nii.gz", folder / "expected" / "resumed.nii.gz")
    model = folders_of(copy).with_plan("stopped").model("3d_fullres")
    shutil.copy(model.progress(0, "jsonl"), folder / "expected" / "resumed.jsonl")


def main(seed: int) -> None:
    """Makes all, and writes it beside this file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        describe_package(folder / "site")
        sys.path.insert(0, str(folder / "site"))
        root = make_workspace(folder, seed)
        pack(root, HERE / "workspace.zip")
        make_predictions(root, folder)
        run(f"export -d {NUMBER} -w {root} -o {folder / 'Version1.zip'} --licence MIT --about Made-up.")
        shutil.copy(folder / "Version1.zip", HERE / "bundle.zip")
        pack(folder / "begun", HERE / "begun.zip")
        pack(folder / "expected", HERE / "expected.zip")


if __name__ == "__main__":
    main(seed=int(sys.argv[1]) if len(sys.argv) > 1 else 12345)
