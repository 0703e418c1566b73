"""What `autoseg check` and the fingerprint pass find in the voxels of a dataset."""

from pathlib import Path

import numpy as np
import pytest
from phantoms import REALDATA, SHAPE, Listener, blocks, noise, place, write_dataset, write_picture

from autoseg.datasets.dataset import Case, Dataset, Problem
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.integrity import check_dataset, find_problems, inspect_case, load_case
from autoseg.errors import DatasetError
from autoseg.imaging.image_files import write_image, write_label_map
from autoseg.importing.sources import import_source
from autoseg.workspace import Workspace


def found(folder: Path) -> list[str]:
    """All problems of the dataset in a folder, one line each."""
    return [str(problem) for problem in check_dataset(Dataset.open(folder)).problems]


def test_sound_dataset_has_no_problems(tmp_path: Path) -> None:
    """Every case is read, and nothing is found."""
    dataset = write_dataset(tmp_path, cases=4, channels=2)
    listener = Listener()
    assert check_dataset(dataset, listener).problems == ()
    assert list(listener.totals.values()) == list(listener.advanced.values()) == [4]


def test_every_bad_case_is_named_in_order(tmp_path: Path) -> None:
    """One bad case never hides another, and results stand in the order of the cases."""
    write_dataset(tmp_path, cases=6)
    (tmp_path / "imagesTr" / "case_1_0000.nii.gz").write_bytes(b"no image")
    write_label_map(tmp_path / "labelsTr" / "case_2.nii.gz", place(blocks((0, 1, 7, 9))))
    write_label_map(tmp_path / "labelsTr" / "case_3.nii.gz", place(blocks(), spacing_mm=(2.5, 1.0, 1.0)))
    write_image(tmp_path / "imagesTr" / "case_4_0000.nii.gz", place(np.full((1, *SHAPE), 5.0)))
    (tmp_path / "labelsTr" / "case_5.nii.gz").unlink()
    problems = check_dataset(Dataset.open(tmp_path)).problems
    assert [problem.case for problem in problems] == ["case_5", "case_1", "case_2", "case_3", "case_4"]
    for problem, words in zip(
        problems,
        (
            "is missing",
            "cannot be read",
            "holds 7, 9, but dataset.json names 0 to 2",
            "spacing",
            "same value everywhere",
        ),
        strict=True,
    ):
        assert words in problem.what
        assert f"--skip {problem.case}" in problem.fix


def test_one_case_can_have_several_problems(tmp_path: Path) -> None:
    """An unreadable label does not hide what is wrong with the image."""
    dataset = write_dataset(tmp_path)
    write_image(tmp_path / "imagesTr" / "case_1_0000.nii.gz", place(np.zeros((1, *SHAPE))))
    (tmp_path / "labelsTr" / "case_1.nii.gz").write_bytes(b"")
    inspection = inspect_case(dataset.cases[0], dataset.info)
    assert [("same value" in p.what, "labelsTr" in p.what) for p in inspection.problems] == [
        (False, True),
        (True, False),
    ]
    assert inspection.label is None
    assert inspection.labels_seen is None


def test_voxels_that_are_no_numbers_are_found(tmp_path: Path) -> None:
    """A single NaN makes the case unusable."""
    write_dataset(tmp_path, ending=".nrrd")
    image = noise(0)
    image[0, 0, 0] = np.nan
    write_image(tmp_path / "imagesTr" / "case_2_0000.nrrd", place(image[np.newaxis]))
    assert ["voxels that are NaN or infinite: 1" in line for line in found(tmp_path)] == [True]


def test_voxels_that_are_no_numbers_are_found_in_nifti_too(tmp_path: Path) -> None:
    """The library that reads NIfTI would put zeros in their place."""
    write_dataset(tmp_path)
    image = noise(0)
    image[0, 0, :2] = np.nan, np.inf
    write_image(tmp_path / "imagesTr" / "case_2_0000.nii.gz", place(image[np.newaxis]))
    assert ["voxels that are NaN or infinite: 2" in line for line in found(tmp_path)] == [True]


def test_colours_must_be_as_many_as_named(tmp_path: Path) -> None:
    """A grey picture in a colour dataset is found, a colour picture is not."""
    info = DatasetInfo(
        channel_names=dict.fromkeys("012", "rgb_to_0_1"), labels={"background": 0, "a": 1}, file_ending=".png"
    )
    info.save(tmp_path / "dataset.json")
    random = np.random.default_rng(0)
    mask = np.repeat(np.arange(2, dtype=np.uint8), 4)[:, np.newaxis].repeat(7, axis=1)
    for name, shape in (("colour", (8, 7, 3)), ("grey", (8, 7))):
        write_picture(tmp_path / "imagesTr" / f"{name}.png", random.integers(0, 255, shape, np.uint8))
        write_picture(tmp_path / "labelsTr" / f"{name}.png", mask)
    lines = found(tmp_path)
    assert len(lines) == 1
    assert "'grey': its image holds 1 channels, but dataset.json names 3" in lines[0]


def test_label_that_never_occurs_is_found(tmp_path: Path) -> None:
    """A label of dataset.json without a voxel anywhere cannot be learned."""
    write_dataset(tmp_path, cases=2)
    for number in (1, 2):
        write_label_map(tmp_path / "labelsTr" / f"case_{number}.nii.gz", place(blocks((0, 1))))
    assert ["no label map holds 'b'" in line for line in found(tmp_path)] == [True]


def test_some_label_maps_may_be_empty_but_not_all(tmp_path: Path) -> None:
    """A case without foreground is legal; a dataset without foreground is not."""
    write_dataset(tmp_path, cases=2)
    write_label_map(tmp_path / "labelsTr" / "case_1.nii.gz", place(blocks((0,))))
    assert found(tmp_path) == []
    write_label_map(tmp_path / "labelsTr" / "case_2.nii.gz", place(blocks((0,))))
    assert ["all label maps are empty" in line for line in found(tmp_path)] == [True]


def test_labels_are_not_judged_while_a_label_map_is_unread(tmp_path: Path) -> None:
    """An unreadable label map may hold the label that is missing."""
    write_dataset(tmp_path, cases=2)
    write_label_map(tmp_path / "labelsTr" / "case_1.nii.gz", place(blocks((0, 1))))
    (tmp_path / "labelsTr" / "case_2.nii.gz").write_bytes(b"")
    assert ["case_2" in line for line in found(tmp_path)] == [True]


def test_one_case_is_too_few(tmp_path: Path) -> None:
    """A dataset needs a case to train on and one to hold out."""
    write_dataset(tmp_path, cases=1)
    assert ["1 complete case; bring at least 2" in line for line in found(tmp_path)] == [True]


def test_fingerprint_pass_finds_what_check_finds(tmp_path: Path) -> None:
    """Problems follow from the inspections alone, after the voxels are gone."""
    write_dataset(tmp_path, cases=3)
    write_label_map(tmp_path / "labelsTr" / "case_2.nii.gz", place(blocks((0, 5))))
    dataset = Dataset.open(tmp_path)
    inspections = [inspect_case(case, dataset.info).without_voxels() for case in dataset.cases]
    assert all(inspection.image is None and inspection.label is None for inspection in inspections)
    assert find_problems(dataset, inspections) == list(check_dataset(dataset).problems)
    assert len(find_problems(dataset, inspections)) == 1


def test_inspection_gives_the_voxels(tmp_path: Path) -> None:
    """A sound case comes with image and label on one grid."""
    dataset = write_dataset(tmp_path, channels=2)
    inspection = inspect_case(dataset.cases[0], dataset.info)
    image, label = load_case(dataset.cases[0], dataset.info)
    assert inspection.problems == ()
    assert inspection.labels_seen == {0, 1, 2}
    assert inspection.image is not None
    np.testing.assert_array_equal(inspection.image.array, image.array)
    np.testing.assert_array_equal(image.array, [noise(10), noise(11)])
    np.testing.assert_array_equal(label.array, blocks())
    assert image.geometry.difference(label.geometry) is None


def test_loading_a_bad_case_raises_its_first_problem(tmp_path: Path) -> None:
    """The error names case, problem and remedy."""
    dataset = write_dataset(tmp_path)
    write_label_map(tmp_path / "labelsTr" / "case_1.nii.gz", place(blocks(shape=(6, 9, 7))))
    with pytest.raises(DatasetError, match=r"'case_1'.*shape 8 x 9 x 6 differs from 7 x 9 x 6 voxels.*--skip case_1"):
        load_case(dataset.cases[0], dataset.info)


def test_a_case_without_label_cannot_be_loaded(tmp_path: Path) -> None:
    """A scan to predict is no training case."""
    dataset = write_dataset(tmp_path)
    scan = Case(name="scan", images=dataset.cases[0].images)
    assert isinstance(inspect_case(scan, dataset.info).problems[0], Problem)
    with pytest.raises(DatasetError, match="no label map"):
        load_case(scan, dataset.info)


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="no real scans beside the checkout")
def test_real_scans_on_different_grids_are_found(tmp_path: Path) -> None:
    """The raw scans of a study, each on its own grid, are refused with the difference."""
    folder = REALDATA / "open_ms" / "mismatched" / "patient01"
    info = DatasetInfo(channel_names={"0": "FLAIR"}, labels={"background": 0, "lesion": 1}, file_ending=".nii.gz")
    case = Case(name="patient01", images=(folder / "study1_T1W.nii.gz",), label=folder / "gt.nii.gz")
    assert any("different grids" in problem.what for problem in inspect_case(case, info).problems)


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="no real scans beside the checkout")
def test_real_hippocampus_is_sound(tmp_path: Path) -> None:
    """A published dataset passes."""
    dataset = import_source(REALDATA / "Task04_Hippocampus", workspace=Workspace(root=tmp_path), number=4)
    assert check_dataset(dataset).problems == ()
