"""Series over time: as cases of one group where each point in time has a label map, as channels where all have one."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from phantoms import Listener

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.integrity import check_dataset
from autoseg.errors import AutosegError
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.importing.linking import find_conversions
from autoseg.importing.recognition import recognise
from autoseg.pipeline import import_dataset

AFFINE = np.diag([-1.5, -1.5, 8, 1])


def write(path: Path, voxels: np.ndarray) -> np.ndarray:
    """Writes voxels (x, y, z, t) by nibabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), path)
    return voxels


def cine(seed: int, points: int, labelled: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns a series (x, y, z, t), and its label maps, which are empty where they are not labelled."""
    label = np.zeros((12, 11, 4, points), np.uint8)
    for point in labelled:
        label[2 : 6 + seed, 3:8, :, point] = 1
        label[7:10, 3:8, :, point] = 2
    noise = np.random.default_rng(seed).normal(0, 10, label.shape)
    return (100 + 80 * label + noise).astype(np.int16), label


def write_cines(folder: Path, *, described: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Writes three series, two of which are labelled in two points in time only."""
    names = ("imagesTr", "labelsTr") if described else ("images", "masks")
    series = {"a": cine(0, 4, (0, 2)), "b": cine(1, 12, (0, 11)), "c": cine(2, 2, (0, 1))}
    for name, (image, label) in series.items():
        write(folder / names[0] / f"{name}.nii.gz", image)
        write(folder / names[1] / f"{name}.nii.gz", label)
    if described:
        content = {"modality": {"0": "MR"}, "labels": {"0": "background", "1": "lv", "2": "rv"}, "numTraining": 3}
        (folder / "dataset.json").write_text(json.dumps(content))
    return series


@pytest.mark.parametrize("described", [True, False])
def test_labelled_points_in_time_become_cases_of_one_group(tmp_path: Path, described: bool) -> None:
    """Their voxels and places are those of the series; the folds keep a series together."""
    series = write_cines(tmp_path / "cines", described=described)
    said = Listener()
    dataset = import_dataset(tmp_path / "cines", 1, name="Cine", workspace=tmp_path / "work", reporter=said)
    assert [case.name for case in dataset.cases] == ["a_t00", "a_t02", "b_t00", "b_t11", "c_t00", "c_t01"]
    assert dataset.info.groups == {case.name: case.name[0] for case in dataset.cases}
    assert check_dataset(dataset).problems == ()
    for case in dataset.cases:
        (image, label), point = series[case.name[0]], int(case.name[-2:])
        assert np.array_equal(read_image(case.images).array[0], image[..., point].T)
        assert np.array_equal(read_label_map(case.label).array, label[..., point].T)
        assert np.allclose(nibabel.load(case.images[0]).affine, AFFINE)
        assert nibabel.load(case.images[0]).get_data_dtype() == np.int16
    assert (
        "3 series over time become 6 cases, one for each point in time; those of a series stay in one fold: a, b, c"
        in (said.lines)
    )
    assert "Left out: 12 points in time without any label" in said.lines


def test_groups_of_the_source_are_kept(tmp_path: Path) -> None:
    """Points in time belong to the patient of their series."""
    write_cines(tmp_path / "cines", described=True)
    path = info_file(tmp_path / "cines")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"groups": {"a": "anna", "b": "anna"}}))
    groups = import_dataset(tmp_path / "cines", 1, name="Cine", workspace=tmp_path / "work").info.groups
    assert groups is not None
    assert {groups["a_t00"], groups["b_t11"], groups["c_t00"]} == {"anna", "c"}


def test_volumes_of_one_label_map_are_channels(tmp_path: Path) -> None:
    """As the Decathlon has them."""
    for name in ("a", "b"):
        image, label = cine(1, 3, (0,))
        write(tmp_path / "mr" / "images" / f"{name}.nii.gz", image)
        write(tmp_path / "mr" / "masks" / f"{name}.nii.gz", label[..., 0])
    dataset = import_dataset(tmp_path / "mr", 1, name="MR", workspace=tmp_path / "work")
    assert dataset.info.channels == 3
    assert [len(case.images) for case in dataset.cases] == [3, 3]


def test_other_numbers_of_volumes_are_named(tmp_path: Path) -> None:
    """A label map too few; and a series cannot be linked as it is."""
    write_cines(tmp_path / "cines", described=False)
    lines = list(find_conversions(recognise(tmp_path / "cines", Listener())).describe())
    assert len(lines) == 2
    assert all("because points in time are split: a_t00" in line for line in lines), lines
    write(tmp_path / "cines" / "masks" / "a.nii.gz", cine(0, 3, (0,))[1])
    with pytest.raises(
        AutosegError, match=r"a\.nii\.gz holds 3 volumes, the image of 'a' holds 4; bring as many label"
    ):
        import_dataset(tmp_path / "cines", 1, name="Cine", workspace=tmp_path / "work")


def test_check_says_what_to_do_about_a_series(tmp_path: Path) -> None:
    """In a raw dataset, which is read as it is."""
    write_cines(tmp_path / "raw" / "Dataset001_Cine", described=True)
    folder = tmp_path / "raw" / "Dataset001_Cine"
    info = DatasetInfo(
        channel_names={"0": "MR"}, labels={"background": 0, "lv": 1, "rv": 2}, file_ending=".nii.gz", name="Cine"
    )
    info.save(info_file(folder))
    problems = [str(problem) for problem in check_dataset(Dataset.open(folder)).problems if problem.case == "a"]
    mask, image = problems
    fix = "let 'autoseg import' make a case of each"
    assert mask.startswith(f"case 'a': {folder / 'labelsTr' / 'a.nii.gz'}: a label map has one channel, not 4; ")
    assert f"{fix} point in time" in mask
    assert image.startswith("case 'a': its image holds 4 channels, but dataset.json names 1; ")
    assert f"{fix}, if they are points in time, or correct channel_names" in image
