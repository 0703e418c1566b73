"""Folders of label maps are compared, and what only one side has is said."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from phantoms import Listener, place

from autoseg.errors import DatasetError, ProblemsError, UsageError
from autoseg.evaluation.folders import compare_folders
from autoseg.imaging.image_files import write_image, write_label_map


def cube(value: int = 1, size: int = 6) -> np.ndarray:
    """A label map with a cube of one value."""
    array = np.zeros((12, 12, 12), np.int32)
    array[2 : 2 + size, 2:8, 2:8] = value
    return array


def write(folder: Path, **arrays: np.ndarray) -> Path:
    """Writes label maps, whatever numbers they hold."""
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        volume = place(array)
        if array.min() < 0 or array.max() > 65535:
            write_image(folder / f"{name}.nii.gz", place(array[np.newaxis].astype(np.float32)))
        else:
            write_label_map(folder / f"{name}.nii.gz", volume)
    return folder


def compare(reference: Path, prediction: Path, **options):
    """Compares, and gives back the summary and what was said."""
    listener = Listener()
    return compare_folders(reference, prediction, None, listener, **options), listener.text


@pytest.fixture
def incomplete(tmp_path):
    """Three references and two segmentations, of which one is half of its reference."""
    references = write(tmp_path / "r", a=cube(), b=cube(), c=cube())
    return references, write(tmp_path / "p", a=cube(), b=cube(size=3))


def test_missing_segmentations_are_said_and_left_out(incomplete):
    """The line counts and names them, and says how they would count."""
    summary, said = compare(*incomplete)
    assert [case.name for case in summary.cases] == ["a", "b"]
    assert summary.foreground_mean.dice == pytest.approx((1 + 2 / 3) / 2)
    assert "1 of 3 references have no segmentation: c; they are left out of all means (--missing zero counts" in said


def test_missing_segmentations_may_count_as_empty(incomplete):
    """Their Dice is 0; the files are those of the reference alone."""
    summary, said = compare(*incomplete, missing="zero")
    assert [case.name for case in summary.cases] == ["a", "b", "c"]
    assert summary.foreground_mean.dice == pytest.approx((1 + 2 / 3) / 3)
    assert (summary.cases[2].reference_file, summary.cases[2].prediction_file) == ("c.nii.gz", "")
    assert "1 of 3 references have no segmentation: c; they count as empty" in said


def test_missing_segmentations_may_be_refused(incomplete):
    """Each has its line; another choice is none."""
    with pytest.raises(ProblemsError, match=r"c\.nii\.gz has no segmentation in .*; bring it, or choose --missing"):
        compare(*incomplete, missing="fail")
    with pytest.raises(UsageError, match="choose skip, zero, fail"):
        compare(*incomplete, missing="ignore")


def test_complete_folders_are_compared_without_a_word(tmp_path):
    """Nothing is missing, and both sides hold the same labels."""
    folder = write(tmp_path / "r", a=cube(), b=cube(2))
    summary, said = compare(folder, folder, missing="fail")
    assert summary.foreground_mean.dice == 1
    assert said == ""


def test_the_only_label_of_each_side_is_the_same(tmp_path):
    """Masks of 0 and 255 beside masks of 0 and 1."""
    summary, said = compare(write(tmp_path / "r", a=cube(1)), write(tmp_path / "p", a=cube(255, size=3)))
    assert summary.mean["label_1"].dice == pytest.approx(2 / 3)
    assert "the only label is 1 in the references and 255 in the segmentations" in said


def test_labels_of_one_side_are_said(tmp_path):
    """Those of segmentations count as background, those of references as missed."""
    reference, prediction = cube(1), cube(1)
    reference[10:, 10:, 10:] = 3
    prediction[:2, :2, :2] = 7
    prediction[2:4] *= 0
    summary, said = compare(write(tmp_path / "r", a=reference), write(tmp_path / "p", a=prediction))
    assert list(summary.mean) == ["label_1", "label_3"]
    assert summary.mean["label_1"].dice == pytest.approx(2 * 4 / (6 + 4))
    assert summary.mean["label_3"].dice == 0
    assert "the segmentations also hold 7, which no reference holds; they count as background" in said
    assert "the references also hold 3, which no segmentation holds; nothing of them was found" in said


@pytest.mark.parametrize("value", [-1, 614_454_272, -5])
def test_any_whole_number_is_a_label(tmp_path, value):
    """Without dataset.json, numbers are names, however large or small they are."""
    reference, prediction = cube(1), cube(1)
    reference[9:11, 9:11, 9:11] = prediction[9:11, 9:11, 9:10] = value
    summary, said = compare(write(tmp_path / "r", a=reference), write(tmp_path / "p", a=prediction))
    assert summary.mean[f"label_{value}"].dice == pytest.approx(2 / 3)
    assert summary.mean["label_1"].dice == 1
    assert said == ""


def test_two_files_are_compared(tmp_path):
    """Their names do not matter; a file and a folder are no pair."""
    references, predictions = write(tmp_path / "r", a=cube()), write(tmp_path / "p", b=cube(size=3))
    summary, _ = compare(references / "a.nii.gz", predictions / "b.nii.gz")
    assert summary.foreground_mean.dice == pytest.approx(2 / 3)
    with pytest.raises(DatasetError, match="is a file, and the other one is a folder; give two folders, or two files"):
        compare(references / "a.nii.gz", predictions)


def test_references_of_background_alone_are_refused(tmp_path):
    """There is nothing to look for."""
    empty = write(tmp_path / "r", a=cube(0))
    with pytest.raises(DatasetError, match="hold background only"):
        compare(empty, write(tmp_path / "p", a=cube()))


def write_reference(path: Path, start: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    """Writes a segmentation of 3D Slicer that is cut to a box (x, y, z): "b" has the value 1, and "a" 2."""
    voxels = np.zeros((9, 8, 6), np.uint8)
    voxels[2:5, 2:6, 1:5], voxels[6:8, 2:6, 1:5] = 2, 1
    cut = voxels[tuple(slice(first, first + count) for first, count in zip(start, size, strict=True))]
    lines = ["NRRD0004", "type: unsigned char", "dimension: 3", "space: left-posterior-superior"]
    lines += [f"sizes: {size[0]} {size[1]} {size[2]}", "space directions: (1,0,0) (0,1,0) (0,0,2)"]
    lines += ["kinds: domain domain domain", "endian: little", "encoding: raw"]
    lines += [f"space origin: ({start[0]},{start[1]},{2 * start[2]})"]
    lines += ["Segment0_Name:=b", "Segment0_LabelValue:=1", "Segment0_Layer:=0"]
    lines += ["Segment1_Name:=a", "Segment1_LabelValue:=2", "Segment1_Layer:=0"]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + cut.tobytes(order="F"))


@pytest.mark.parametrize(("start", "size"), [((0, 0, 0), (9, 8, 6)), ((2, 2, 1), (6, 4, 4))], ids=["whole", "cut"])
@pytest.mark.parametrize("named", [True, False])
def test_segmentations_of_slicer_are_scored(tmp_path: Path, start, size, named: bool) -> None:
    """By the names of their segments, if there are names for labels, else by their values; cut or not."""
    write_reference(tmp_path / "references" / "case.seg.nrrd", start, size)
    voxels = np.zeros((9, 8, 6), np.uint8)
    voxels[2:5, 2:6, 1:5], voxels[6:8, 2:6, 1:4] = 1 if named else 2, 2 if named else 1
    (tmp_path / "masks").mkdir()
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1, -1, 2, 1])), tmp_path / "masks" / "case.nii.gz")
    labels = {"a": 1, "b": 2} if named else None
    result = compare_folders(tmp_path / "references", tmp_path / "masks", labels, Listener())
    dice = {name: scores.dice for name, scores in result.cases[0].scores.items()}
    assert dice == pytest.approx({"a": 1.0, "b": 2 * 24 / (32 + 24)} if named else {"label_2": 1.0, "label_1": 48 / 56})
