"""Mended copies of datasets: what needs no judgement is mended and listed, and the dataset stays as it is."""

import csv
import json
from pathlib import Path
from unicodedata import normalize

import nibabel
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.errors import UsageError
from autoseg.pipeline import check, fix

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
MASK = np.zeros((10, 11, 6), np.uint8)
MASK[2:7, 3:8, 1:5] = 1


def write(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """Writes an image by nibabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def write_dataset(
    root: Path, *, channels: int = 1, ending: str = ".nii.gz", labels: tuple[str, ...] = ("organ",)
) -> Path:
    """Writes a sound dataset of two cases."""
    folder = root / "raw" / "Dataset004_Tiny"
    for case in "ab":
        for channel in range(channels):
            noise = np.random.default_rng(channel).normal(size=MASK.shape).astype(np.float32)
            write(folder / "imagesTr" / f"{case}_{channel:04d}{ending}", noise)
        write(folder / "labelsTr" / f"{case}{ending}", MASK)
    info = DatasetInfo(
        channel_names={str(channel): f"MR{channel}" for channel in range(channels)},
        labels={"background": 0, **{label: number for number, label in enumerate(labels, 1)}},
        file_ending=ending,
        name="Tiny",
    )
    info.save(info_file(folder), {"numTraining": 2})
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The content of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def moved(x: float = 0, y: float = 0, z: float = 0, scale: float = 1.0) -> np.ndarray:
    """The matrix of an image that lies elsewhere, in voxels, or has other sizes of voxels."""
    affine = AFFINE * [[scale], [scale], [scale], [1]]
    affine[:3, 3] = AFFINE[:3, :3] @ [x, y, z]
    return affine


def rounding(folder: Path) -> None:
    """Moves a mask by less than half a voxel."""
    write(folder / "labelsTr" / "a.nii.gz", MASK, moved(z=0.3))


def rounded_sizes(folder: Path) -> None:
    """Rounds the sizes of its voxels."""
    write(folder / "labelsTr" / "a.nii.gz", MASK, moved(scale=1.004))


def floats(folder: Path) -> None:
    """Saves a mask as floats."""
    write(folder / "labelsTr" / "a.nii.gz", MASK.astype(np.float64))


def white(folder: Path) -> None:
    """Saves a mask as 0 and 255."""
    write(folder / "labelsTr" / "a.nii.gz", MASK * np.uint8(255))


def capitals(folder: Path) -> None:
    """Writes an ending in capitals."""
    (folder / "labelsTr" / "a.nii.gz").rename(folder / "labelsTr" / "a.NII.GZ")


def other_format(folder: Path) -> None:
    """Saves a mask without compression."""
    (folder / "labelsTr" / "a.nii.gz").unlink()
    write(folder / "labelsTr" / "a.nii", MASK)


def mark(folder: Path) -> None:
    """Saves dataset.json with a comment and a byte order mark."""
    text = info_file(folder).read_text()
    info_file(folder).write_text("// ours\n" + text, encoding="utf-8-sig")


def count(folder: Path) -> None:
    """States a wrong number of cases."""
    content = json.loads(info_file(folder).read_text())
    info_file(folder).write_text(json.dumps(content | {"numTraining": 9}))


KINDS = {
    "rounding": (rounding, "labelsTr/a.nii.gz", "its header became that of its image, from which it was 0.30 voxels"),
    "sizes": (rounded_sizes, "labelsTr/a.nii.gz", "its header became that of its image, from which it was 0.04 voxels"),
    "floats": (floats, "labelsTr/a.nii.gz", "float64 became whole numbers"),
    "255": (white, "labelsTr/a.nii.gz", "255 became 1"),
    "capitals": (capitals, "labelsTr/a.nii.gz", "renamed, was a.NII.GZ"),
    "format": (other_format, "labelsTr/a.nii.gz", "saved as .nii.gz, was a.nii"),
    "mark": (mark, "dataset.json", "saved as plain JSON in UTF-8"),
    "count": (count, "dataset.json", "numTraining became 2, was 9"),
}


@pytest.mark.parametrize(("spoil", "file", "change"), KINDS.values(), ids=KINDS)
def test_each_kind_is_mended(tmp_path: Path, spoil, file: str, change: str) -> None:
    """The copy is sound and has the voxels of the sound dataset; only the named file was changed."""
    folder = write_dataset(tmp_path)
    sound = bytes_of(folder)
    spoil(folder)
    before = bytes_of(folder)
    dataset, fixes = fix(4, workspace=tmp_path)
    assert dataset.name == "Dataset005_Tiny"
    assert [fix.file for fix in fixes] == [file]
    assert fixes[0].change.startswith(change)
    assert check(5, workspace=tmp_path) == []
    assert bytes_of(folder) == before
    copied = bytes_of(dataset.folder)
    with (dataset.folder / "fixes.csv").open(encoding="utf-8", newline="") as table:
        assert list(csv.reader(table)) == [["file", "change"], [file, fixes[0].change]]
    assert copied.keys() - {"fixes.csv"} == sound.keys()
    assert all(copied[name] == content for name, content in sound.items() if name not in {file, "dataset.json"})
    label = nibabel.load(dataset.folder / "labelsTr" / "a.nii.gz")
    assert np.array_equal(np.asarray(label.dataobj), MASK)
    assert np.allclose(label.affine, AFFINE)
    assert json.loads(info_file(dataset.folder).read_text())["numTraining"] == 2


def test_channels_lie_on_the_first(tmp_path: Path) -> None:
    """As far as rounding goes; their voxels stay to the bit."""
    folder = write_dataset(tmp_path, channels=2)
    voxels = np.random.default_rng(7).integers(-999, 999, size=MASK.shape).astype(np.int16)
    write(folder / "imagesTr" / "b_0001.nii.gz", voxels, moved(x=0.2))
    dataset, fixes = fix(4, 7, workspace=tmp_path)
    assert [(fix.file, fix.change[:42]) for fix in fixes] == [
        ("imagesTr/b_0001.nii.gz", "its header became that of the first channe")
    ]
    channel = nibabel.load(dataset.folder / "imagesTr" / "b_0001.nii.gz")
    assert np.array_equal(np.asarray(channel.dataobj), voxels)
    assert channel.get_data_dtype() == np.int16
    assert check(7, workspace=tmp_path) == []


def test_names_are_composed(tmp_path: Path) -> None:
    """Image and mask, however each is spelt."""
    folder = write_dataset(tmp_path)
    decomposed, composed = normalize("NFD", "müller"), normalize("NFC", "müller")
    (folder / "imagesTr" / "a_0000.nii.gz").rename(folder / "imagesTr" / f"{decomposed}_0000.nii.gz")
    (folder / "labelsTr" / "a.nii.gz").rename(folder / "labelsTr" / f"{composed}.nii.gz")
    dataset, fixes = fix(4, workspace=tmp_path)
    assert [fix.file for fix in fixes] == [f"imagesTr/{composed}_0000.nii.gz"]
    assert (dataset.folder / "imagesTr" / f"{composed}_0000.nii.gz").is_file()


def test_palettes_become_indices(tmp_path: Path) -> None:
    """Without a dataset of volumes."""
    folder = tmp_path / "raw" / "Dataset004_Tiny"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    mask = np.zeros((20, 24), np.uint8)
    mask[4:12, 5:15] = 1
    for case in "ab":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, mask.shape).astype(np.uint8)).save(
            folder / "imagesTr" / f"{case}_0000.png"
        )
        picture = Image.fromarray(mask, mode="P")
        picture.putpalette([0, 0, 0, 200, 30, 30])
        picture.save(folder / "labelsTr" / f"{case}.png")
    info = DatasetInfo(channel_names={"0": "grey"}, labels={"background": 0, "a": 1}, file_ending=".png", name="Tiny")
    info.save(info_file(folder))
    dataset, fixes = fix(4, workspace=tmp_path)
    assert [fix.change for fix in fixes] == ["the indices of its palette became grey values"] * 2
    with Image.open(dataset.folder / "labelsTr" / "a.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), mask)


def test_listed_files_are_brought_together(tmp_path: Path) -> None:
    """As dataset.json lists them; the list is left out."""
    folder = write_dataset(tmp_path)
    listed = tmp_path / "elsewhere"
    (folder / "imagesTr").rename(listed)
    (folder / "labelsTr").rename(tmp_path / "masks")
    cases = {
        case: {"images": [str(listed / f"{case}_0000.nii.gz")], "label": str(tmp_path / "masks" / f"{case}.nii.gz")}
        for case in "ab"
    }
    content = json.loads(info_file(folder).read_text())
    info_file(folder).write_text(json.dumps(content | {"dataset": cases}))
    dataset, fixes = fix(4, workspace=tmp_path)
    assert [fix.change for fix in fixes] == ["the files that it listed were brought into imagesTr and labelsTr"]
    assert sorted(bytes_of(dataset.folder)) == [
        "dataset.json",
        "fixes.csv",
        *(f"imagesTr/{case}_0000.nii.gz" for case in "ab"),
        *(f"labelsTr/{case}.nii.gz" for case in "ab"),
    ]
    assert check(5, workspace=tmp_path) == []


LEFT_ALONE = {
    "half a voxel": moved(x=0.5),
    "another place": moved(y=3),
    "other sizes": moved(scale=1.1),
    "mirrored": AFFINE * [[-1], [1], [1], [1]],
}


@pytest.mark.parametrize("affine", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_needs_judgement_is_left_to_the_user(tmp_path: Path, affine: np.ndarray) -> None:
    """No copy is made, and check names it."""
    folder = write_dataset(tmp_path)
    write(folder / "labelsTr" / "a.nii.gz", MASK, affine)
    assert fix(4, workspace=tmp_path) is None
    assert [path.name for path in (tmp_path / "raw").iterdir()] == [folder.name]
    [problem] = check(4, workspace=tmp_path)
    assert "lie on different grids" in problem.what


def test_two_values_of_two_labels_are_left_alone(tmp_path: Path) -> None:
    """255 may be any of them; and a damaged file stays as it is."""
    folder = write_dataset(tmp_path, labels=("one", "two"))
    write(folder / "labelsTr" / "a.nii.gz", MASK * np.uint8(255))
    (folder / "labelsTr" / "b.nii.gz").write_bytes(b"damaged")
    count(folder)
    dataset, fixes = fix(4, workspace=tmp_path)
    assert [fix.change for fix in fixes] == ["numTraining became 2, was 9"]
    assert (dataset.folder / "labelsTr" / "b.nii.gz").read_bytes() == b"damaged"


def test_command_mends_and_checks_the_copy(tmp_path: Path) -> None:
    """The tables say what was mended and what is left; the exit code is that of the copy."""
    folder = write_dataset(tmp_path)
    rounding(folder)
    run = CliRunner().invoke
    result = run(app, ["check", "-d", "4", "--fix", "--as", "9", "-w", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "Dataset009_Tiny: 1 change" in result.output
    assert "labelsTr/a.nii.gz" in result.output
    assert run(app, ["check", "-d", "4", "-w", str(tmp_path)]).exit_code == 2
    assert run(app, ["check", "-d", "4", "--fix", "--as", "9", "-w", str(tmp_path)]).exit_code != 0
    with pytest.raises(UsageError, match=r"already holds Dataset009_Tiny; choose another number with --as"):
        fix(4, 9, workspace=tmp_path)
    sound = run(app, ["check", "-d", "9", "--fix", "-w", str(tmp_path)])
    assert sound.exit_code == 0
    assert "nothing that can be mended" in sound.output
