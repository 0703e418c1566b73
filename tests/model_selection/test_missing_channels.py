"""Scans that lack channels: training on them, segmenting them, and what each channel is worth."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import Listener
from tiny_workspaces import NUMBER, dice, folders_of, plan_tiny, write_splits, write_volumes

import autoseg
from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ProblemsError
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.model_selection.missing_channels import FILE_NAME, MissingChannelScores
from autoseg.preprocessing.store import StoredCase

pytestmark = pytest.mark.slow

LABELS = {"bright": 1, "dark": 2}


def allow_missing(root: Path) -> None:
    """Writes into dataset.json that scans may lack channels."""
    path = folders_of(root).raw / "dataset.json"
    DatasetInfo.load(path).model_copy(update={"missing_channels": True}).save(path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A trained workspace of two channels, in which case_2 lacks the second, and the scan of imagesTs the first."""
    root = tmp_path_factory.mktemp("missing_channels")
    folders = write_volumes(root, channels=2, cases=4)
    allow_missing(root)
    (folders.raw / "imagesTr" / "case_2_0001.nii.gz").unlink()
    (folders.raw / "imagesTs" / "case_5_0000.nii.gz").unlink()
    plan_tiny(root, epochs=12, steps_per_epoch=10)
    write_splits(root, [(["case_1", "case_2"], ["case_3", "case_4"])])
    autoseg.train(NUMBER, "3d_fullres", 0, workspace=root)
    return root


def test_a_case_without_a_file_is_a_case_without_the_channel(workspace):
    """It is listed, its channel is 0 everywhere, and the plan says why patches lack channels."""
    folders = folders_of(workspace)
    stored = {name: StoredCase.open(folders.cases("3d_fullres"), name) for name in ("case_1", "case_2")}
    assert [case.missing_channels for case in stored.values()] == [(), (1,)]
    image = stored["case_2"].load()[0]
    assert len(image) == 2
    assert not image[1].any()
    assert image[0].std() > 0.5
    text = folders.plan.read_text()
    assert '"missing_channels_probability": 0.4' in text
    assert "Scans may lack channels, because dataset.json says so" in text


def test_scores_without_each_channel_are_those_of_scans_that_lack_it(workspace):
    """They equal the Dice of the masks that the model makes of the files of the other channel alone."""
    folders = folders_of(workspace)
    model = folders.model("3d_fullres")
    scores = MissingChannelScores.load(model.validation(0) / FILE_NAME)
    loaded = autoseg.load_model(model.path)
    for name in ("case_3", "case_4"):
        paths = [folders.raw / "imagesTr" / f"{name}_{channel:04d}.nii.gz" for channel in (0, 1)]
        truth = read_label_map(folders.raw / "labelsTr" / f"{name}.nii.gz").array
        for channel, images in {"channel_0": [None, paths[1]], "channel_1": [paths[0], None]}.items():
            mask = sitk.GetArrayFromImage(loaded.predict(images))
            expected = {label: dice(truth, mask, number) for label, number in LABELS.items()}
            assert scores.dice[channel][name] == pytest.approx(expected, abs=1e-12)
    assert scores.mean("channel_0") == pytest.approx(
        np.mean([np.mean([scores.dice["channel_0"][name][label] for name in ("case_3", "case_4")]) for label in LABELS])
    )


def test_one_channel_is_enough_for_a_network_that_knew_less(workspace):
    """Each channel shows the structures, so either alone still does after such a training."""
    scores = MissingChannelScores.load(folders_of(workspace).model("3d_fullres").validation(0) / FILE_NAME)
    assert min(map(scores.mean, scores.dice)) > 0.5


def test_scans_that_lack_channels_are_segmented_and_named(workspace, tmp_path):
    """report.csv says which channel is missing, and nothing else is remarked about it."""
    autoseg.predict(folders_of(workspace).raw / "imagesTs", tmp_path / "masks", number=NUMBER, workspace=workspace)
    with (tmp_path / "masks" / "report.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["case"] == "case_5"
    assert "channel channel_0 is missing" in row["remarks"]
    assert "everywhere" not in row["remarks"]


def test_models_of_complete_scans_take_others_only_if_asked_to(tmp_path):
    """Without the option, the scan gets a line that names its files; with it, it is segmented."""
    folders = write_volumes(tmp_path, channels=2)
    plan_tiny(tmp_path, epochs=1)
    autoseg.train(NUMBER, "3d_fullres", 0, workspace=tmp_path)
    assert not (folders.model("3d_fullres").validation(0) / FILE_NAME).exists()
    (folders.raw / "imagesTs" / "case_4_0000.nii.gz").unlink()
    scans = folders.raw / "imagesTs"
    with pytest.raises(ProblemsError, match=r"the image has 1 channels, .*--missing-channels"):
        autoseg.predict(scans, tmp_path / "masks", number=NUMBER, workspace=tmp_path)
    [mask] = autoseg.predict(scans, tmp_path / "others", number=NUMBER, workspace=tmp_path, missing_channels=True)
    assert mask.name == "case_4.nii.gz"


def test_cases_that_lack_a_channel_are_problems_unless_they_may(tmp_path):
    """The line says how to allow it."""
    folders = write_volumes(tmp_path, channels=2)
    (folders.raw / "imagesTr" / "case_2_0001.nii.gz").unlink()
    [problem] = autoseg.check(NUMBER, workspace=tmp_path)
    assert problem.case == "case_2"
    assert 'write "missing_channels": true into dataset.json' in problem.fix
    allow_missing(tmp_path)
    listener = Listener()
    assert autoseg.check(NUMBER, workspace=tmp_path, reporter=listener) == []
    assert listener.lines[0].endswith("channel 1 (channel_1) is missing in 1 of 3 cases: case_2")


def test_scores_are_not_made_twice(workspace):
    """A run that finds them leaves them."""
    path = folders_of(workspace).model("3d_fullres").validation(0) / FILE_NAME
    before, listener = path.stat().st_mtime_ns, Listener()
    autoseg.train(NUMBER, "3d_fullres", 0, workspace=workspace, reporter=listener)
    assert path.stat().st_mtime_ns == before
    assert not any("without" in line for line in listener.lines)
    assert math.isfinite(MissingChannelScores.load(path).mean("channel_1"))


@pytest.mark.parametrize("link", [False, True])
def test_import_keeps_cases_that_lack_channels_if_the_source_allows_them(tmp_path, link):
    """Their files keep the numbers of their channels, and linked they stay where they are."""
    source = write_volumes(tmp_path / "source", channels=2).raw
    allow_missing(tmp_path / "source")
    (source / "imagesTr" / "case_2_0000.nii.gz").unlink()
    (source / "imagesTs" / "case_4_0000.nii.gz").unlink()
    autoseg.import_dataset(source, 7, link=link, workspace=tmp_path)
    dataset = Dataset.open(tmp_path / "raw" / "Dataset007_Tiny")
    assert dataset.problems == ()
    assert {case.name: case.missing_channels for case in dataset.cases} == {"case_1": (), "case_2": (0,), "case_3": ()}
    assert [path.name for path in dataset.cases[1].images] == ["case_2_0001.nii.gz"]
    if not link:
        assert [path.name for path in (dataset.folder / "imagesTs").iterdir()] == ["case_4_0001.nii.gz"]


def test_missing_channels_do_not_count_in_the_statistics_of_a_channel(workspace):
    """Intensities of the second channel are those of the cases that have it."""
    folders = folders_of(workspace)
    fingerprint = Fingerprint.load(folders.fingerprint)
    assert [case.missing_channels for case in fingerprint.cases] == [(), (1,), (), ()]
    having = [
        read_image((folders.raw / "imagesTr" / f"{name}_0001.nii.gz",)).array[0][
            read_label_map(folders.raw / "labelsTr" / f"{name}.nii.gz").array > 0
        ]
        for name in ("case_1", "case_3", "case_4")
    ]
    assert fingerprint.channels[1].mean == pytest.approx(np.mean([values.mean() for values in having]))
    assert fingerprint.channels[1].minimum == min(values.min() for values in having)
