"""The demo: what it prints can be typed, it can be run again, and it fails when an organ was not learned."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_lines import parse
from tiny_workspaces import files_in
from typer.testing import CliRunner

import autoseg
from autoseg.cli import demo
from autoseg.cli.app import app
from autoseg.cli.terminal import console
from autoseg.datasets.dataset import Dataset
from autoseg.errors import ModelError
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map, write_label_map
from autoseg.importing.demo_dataset import make_demo_dataset
from autoseg.workspace import ModelFolder, Workspace

CHECKPOINT = "results/Dataset001_Demo/3d_fullres/fold_0/checkpoint.pt"


@pytest.fixture(autouse=True)
def wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """A console that breaks no line."""
    monkeypatch.setattr(console, "_width", 200)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and coarser scans and fewer epochs than usual, which no organ can be learned in; none is asked for."""

    def make_fewer(folder: Path) -> Dataset:
        return make_demo_dataset(folder, cases=2)

    monkeypatch.setattr("autoseg.pipeline.demo.make_demo_dataset", make_fewer)
    coarse = {"SPACING_MM": (8.0, 3.2, 3.2), "LOWEST_SHAPE": (8, 18, 18), "HIGHEST_SHAPE": (10, 22, 22)}
    for name, value in {**coarse, "TEST_SCANS": 1}.items():
        monkeypatch.setattr(f"autoseg.importing.demo_dataset.{name}", value)
    monkeypatch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 10_000)
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "LEAST_DICE", 0.0)


def run(workspace: Path, *options: str, code: int = 0) -> str:
    """Runs the demo and gives back what it printed."""
    result = CliRunner().invoke(app, ["demo", "-w", str(workspace), *options], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_demo_goes_all_the_way_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run says how long it takes and makes masks and a picture; a second one keeps the model and judges it again."""
    output = run(tmp_path, "--device", "cpu")
    assert output.startswith("this takes about three minutes on two cores, longer on slower or busier ones")
    commands = re.findall(r"^\$ autoseg (.*)$", output, re.MULTILINE)
    names = [command.split()[0] for command in commands]
    assert names == ["import", "check", "plan_and_preprocess", "train", "predict", "evaluate"]
    for command in commands:
        parse(command)
    assert " --epochs 1 " in commands[3]
    [picture] = re.findall(r"^picture .*: (.*)$", output, re.MULTILINE)
    assert Path(picture).is_file()
    assert [path.name for path in (tmp_path / "masks").glob("*.nii.gz")] == ["demo_003.nii.gz"]

    weights = (tmp_path / CHECKPOINT).read_bytes()
    monkeypatch.setattr(demo, "LEAST_DICE", 1.1)
    again = run(tmp_path, "--device", "cpu", code=2)
    assert "$ autoseg import" not in again
    assert "is trained to its end" in again
    assert (tmp_path / CHECKPOINT).read_bytes() == weights
    assert "next, your own data" not in again
    assert again.count(" (Dice ") == 4  # four organs of one held-out case
    [advice] = re.findall(r"train longer: autoseg (.*)$", again, re.MULTILINE)
    parse(advice)


@pytest.mark.usefixtures("tiny")
def test_a_training_of_another_length_is_named(tmp_path: Path) -> None:
    """As the demo of an earlier version leaves it, which trained for a time; nothing is changed."""
    autoseg.make_demo_dataset(tmp_path / "raw" / "Dataset001_Demo")
    autoseg.plan_and_preprocess(1, configurations=["3d_fullres"], preset="small", workspace=tmp_path)
    autoseg.train(1, "3d_fullres", 0, budget="1s", device="cpu", workspace=tmp_path)
    files = files_in(tmp_path)
    assert run(tmp_path, code=2) == (
        f"error: {tmp_path} holds a demo that an earlier version, or its user, trained for 1 seconds instead of 1 "
        "epochs; remove that folder, or choose another with -w\n"
    )
    assert files_in(tmp_path) == files


def test_lost_organs_are_named(tmp_path: Path) -> None:
    """Each with its case and Dice, and with the files to look at; organs that were learned are not listed."""
    labels = autoseg.make_demo_dataset(tmp_path / "data", cases=2).folder / "labelsTr"
    model = ModelFolder(path=tmp_path / "model")
    demo.check_organs(autoseg.evaluate(labels, labels), model, tmp_path)

    masks = tmp_path / "masks"
    shutil.copytree(labels, masks)
    label = read_label_map(masks / "demo_002.nii.gz")
    array = np.where(np.isin(label.array, (2, 4)), 0, label.array)
    write_label_map(masks / "demo_002.nii.gz", Volume(array=array, geometry=label.geometry))
    with pytest.raises(ModelError) as error:
        demo.check_organs(autoseg.evaluate(labels, masks), model, tmp_path)
    assert error.value.what == (
        "organs were not learned: spleen of demo_002 (Dice 0.000), pancreas of demo_002 (Dice 0.000)"
    )
    for path in (model.overlay(0, "worst"), model.progress(0, "png")):
        assert str(path) in error.value.fix


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_demo_learns_its_organs(tmp_path: Path) -> None:
    """As README promises it, on whatever this machine has."""
    run(tmp_path)
    model = Workspace(root=tmp_path).folders("Dataset001_Demo").model("3d_fullres")
    summary = Summary.load(summary_file(model.validation(0)))
    assert len(summary.cases) == 3
    assert min(scores.dice for case in summary.cases for scores in case.scores.values()) > 0.85
