"""Labels that a model makes and learns from, and suggestions what to label next, from the commands to the files."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from phantoms import Listener
from tiny_workspaces import NUMBER, boxes, folders_of, plan_tiny, scan, write_volumes
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Splits
from autoseg.errors import ProblemsError, UsageError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_label_map, write_image
from autoseg.model_selection.suggestions import Suggestions
from autoseg.pipeline import pseudo_label, suggest, train
from autoseg.planning.plan import Plan
from autoseg.workspace import Workspace

pytestmark = pytest.mark.slow

CONFIGURATION = "3d_fullres"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace of four cases whose folds are trained, and a folder of scans; one is a labelled case."""
    root = tmp_path_factory.mktemp("few")
    folders = write_volumes(root, cases=4)
    plan_tiny(root, epochs=6, steps_per_epoch=5)
    train(NUMBER, CONFIGURATION, "cv", workspace=root)
    scans = root / "unlabelled"
    geometry = Geometry(shape=(14, 16, 18), spacing_mm=(1.0, 1.0, 1.0))
    for number in range(5):
        label = boxes((14, 16, 18), shift=number % 2)
        image = scan(label, 1.0, seed=100 + number)[np.newaxis]
        write_image(scans / f"new_{number}_0000.nii.gz", Volume(array=image, geometry=geometry))
    shutil.copy(folders.raw / "imagesTr" / "case_1_0000.nii.gz", scans)
    return root


@pytest.fixture
def workspace(trained, tmp_path):
    """A copy of the workspace that a test may change."""
    return shutil.copytree(trained, tmp_path / "few")


def new_folders(workspace, number=NUMBER + 1):
    """The folders of the dataset that a round made."""
    return Workspace(root=workspace).dataset(number)


def test_a_round_makes_a_dataset_whose_folds_hold_out_no_case_of_a_model(workspace):
    """Labels, record, plan and folds; training goes on with the weights of the same fold."""
    listener = Listener()
    [outcome] = pseudo_label(
        NUMBER, workspace / "unlabelled", least_dice=0.01, epochs=1, workspace=workspace, reporter=listener
    )
    before, new = folders_of(workspace), new_folders(workspace)
    kept = outcome.record.kept
    assert new.raw.name == "Dataset002_Tiny_pseudo"
    assert kept
    assert set(kept) <= {f"new_{number}" for number in range(5)}
    assert "1 of 6 scans are labelled cases of Dataset001_Tiny, and are left out" in listener.text
    dataset = Dataset.open(new.raw)
    assert dataset.info.machine_labelled == tuple(kept)
    assert {case.name for case in dataset.cases} == {*kept, *(f"case_{number}" for number in range(1, 5))}
    for case in dataset.cases:
        owner = workspace / "unlabelled" if case.name in kept else before.raw / "imagesTr"
        assert [path.parent for path in case.images] == [owner]
    old_folds, folds = Splits.load(before.splits).folds, Splits.load(new.splits).folds
    assert [fold.validation for fold in folds] == [fold.validation for fold in old_folds]
    assert [set(fold.training) - set(kept) for fold in folds] == [set(fold.training) for fold in old_folds]
    assert all(set(kept) <= set(fold.training) for fold in folds)
    assert Plan.load(new.plan).configurations == Plan.load(before.plan).configurations
    assert outcome.after is not None
    assert {case.name for case in outcome.after.cases} == {f"case_{number}" for number in range(1, 5)}
    record = json.loads((new.raw / "pseudo_labels.json").read_text())
    assert record["dataset"] == "Dataset001_Tiny"
    assert [one["case"] for one in record["scans"] if not one["reason"]] == kept
    label = read_label_map(next(case.label for case in dataset.cases if case.name == kept[0]))
    mean = read_label_map(before.model(CONFIGURATION).unlabelled / f"{kept[0]}.nii.gz")
    assert (label.array == mean.array).all()


def test_the_same_call_goes_on_and_segments_nothing_twice(workspace):
    """As after a stop: the dataset of the same labels is found, also without its number."""
    options = {"least_dice": 0.01, "training": False, "workspace": workspace}
    [first] = pseudo_label(NUMBER, workspace / "unlabelled", **options)
    listener = Listener()
    [again] = pseudo_label(NUMBER, workspace / "unlabelled", **options, reporter=listener)
    assert again.dataset == first.dataset
    assert again.after is None
    assert "5 of 5 scans were segmented by an earlier run" in listener.text
    with pytest.raises(UsageError, match=r"already holds Dataset002_Tiny_pseudo; choose another number with --as"):
        pseudo_label(NUMBER, workspace / "unlabelled", **{**options, "least_dice": 0.02}, new_number=2)


def test_rounds_follow_each_other_or_end_when_one_makes_it_worse(workspace):
    """The labels of the second round are made by the folds of the first, and none of the first is left."""
    listener = Listener()
    outcomes = pseudo_label(
        NUMBER, workspace / "unlabelled", rounds=2, least_dice=0.01, new_number=7, epochs=1, workspace=workspace,
        reporter=listener,
    )  # fmt: skip
    if len(outcomes) == 1:
        assert "made the held-out cases worse: stay with the model of before" in listener.text
        return
    assert outcomes[1].record.dataset == "Dataset007_Tiny_pseudo"
    assert outcomes[1].dataset.name == "Dataset008_Tiny_pseudo"
    assert set(outcomes[1].record.kept) <= {f"new_{number}" for number in range(5)}
    assert outcomes[1].before == outcomes[0].after


def test_suggestions_are_a_table_that_pandas_opens(workspace, tmp_path):
    """CSV and JSON hold the same scans, in their order, with a segmentation to correct."""
    suggestions = suggest(NUMBER, workspace / "unlabelled", count=3, output=tmp_path / "next.csv", workspace=workspace)
    table = pd.read_csv(tmp_path / "next.csv")
    assert table["rank"].tolist() == [1, 2, 3]
    assert table["case"].tolist() == [one.case for one in suggestions.suggestions]
    assert (table["share_to_correct"] >= 0).all()
    assert all(read_label_map(path).array.shape == (14, 16, 18) for path in map(type(tmp_path), table["segmentation"]))
    suggest(NUMBER, workspace / "unlabelled", count=3, output=tmp_path / "next.json", workspace=workspace)
    assert Suggestions.load(tmp_path / "next.json") == suggestions
    assert "case_1" not in table["case"].tolist()
    assert len(suggest(NUMBER, workspace / "unlabelled", count=50, workspace=workspace).suggestions) == 5


def test_a_damaged_scan_is_named_and_does_not_stop_the_others(workspace):
    """The others are suggested; if there are only damaged ones, that is an error."""
    (workspace / "unlabelled" / "new_1_0000.nii.gz").write_bytes(b"no image")
    listener = Listener()
    suggestions = suggest(NUMBER, workspace / "unlabelled", workspace=workspace, reporter=listener)
    assert suggestions.scans == 4
    assert "case 'new_1': " in listener.text
    damaged = workspace / "damaged"
    damaged.mkdir()
    shutil.copy(workspace / "unlabelled" / "new_1_0000.nii.gz", damaged)
    with pytest.raises(ProblemsError, match="case 'new_1'"):
        suggest(NUMBER, damaged, workspace=workspace)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["pseudo_label", "--least-dice", "7"], "--least-dice 7 is no Dice; take a number between 0 and 1"),
        (["pseudo_label", "--least-dice", "0.9999"], "no agreement promises a Dice of 0.9999: the held-out cases"),
        (["pseudo_label", "--rounds", "2", "--no-training"], "2 rounds are impossible; take one or more"),
        (["pseudo_label", "-c", "2d"], "2d is validated; run 'autoseg train -d 1 -c 2d -f cv' to its end"),
        (["suggest", "-c", "3d_fullres", "--count", "0"], "Invalid value for '--count'"),
        (["suggest", "-o", "next.txt"], "next.txt ends neither in .csv nor in .json; give such a file with -o"),
        (["suggest", "-c", "4d"], "has no configuration '4d'; choose from"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(trained, arguments, line):
    """Nothing is written."""
    command = [*arguments, "-d", str(NUMBER), "-i", str(trained / "unlabelled"), "-w", str(trained)]
    result = CliRunner(env={"COLUMNS": "500"}).invoke(app, command)
    assert result.exit_code == 2
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Workspace(root=trained).names(NUMBER + 1)


def test_a_folder_of_labelled_scans_is_refused(trained, tmp_path):
    """There is nothing to label."""
    shutil.copy(folders_of(trained).raw / "imagesTr" / "case_2_0000.nii.gz", tmp_path)
    with pytest.raises(UsageError, match="holds no scan that is not labelled"):
        suggest(NUMBER, tmp_path, workspace=trained)
