"""Folders with sheared images: copies in which image and mask lie on one straight grid."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nifti_files import write_nifti
from phantoms import Listener

from autoseg.errors import ProblemsError, UsageError
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.pipeline import straighten

TILT = [-0.5, 0, 0, 0, 0, -0.5, 0.5, 0, 0, 0, 2, 0]
STRAIGHT = [-0.5, 0, 0, 0, 0, -0.5, 0, 0, 0, 0, 2, 0]
IMAGE = np.random.default_rng(0).integers(-1000, 1000, size=(8, 9, 6)).astype(np.int16)
MASK = (IMAGE > 500).astype(np.uint8)


def write_tilted(path: Path, voxels: np.ndarray, srow: list[float] = TILT) -> Path:
    """Writes a NIfTI file whose slices are shifted by a voxel each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(path, voxels, sform_code=1, srow=srow)


def write_dataset(folder: Path) -> None:
    """Writes a raw dataset of two cases, of which one is tilted."""
    for name, srow in (("a", TILT), ("b", STRAIGHT)):
        write_tilted(folder / "imagesTr" / f"{name}_0000.nii.gz", IMAGE, srow)
        write_tilted(folder / "labelsTr" / f"{name}.nii.gz", MASK, srow)
    (folder / "dataset.json").write_text("{}")


def test_a_dataset_is_copied_and_its_tilted_case_straightened(tmp_path: Path) -> None:
    """Image and mask have one grid; each slice of both moved by as many voxels; the rest is as it was."""
    write_dataset(tmp_path / "raw")
    before = {path: path.read_bytes() for path in (tmp_path / "raw").rglob("*") if path.is_file()}
    said = Listener()
    done = straighten(tmp_path / "raw", tmp_path / "new", reporter=said)
    assert [str(path.relative_to(tmp_path / "new")) for path in done] == [
        "imagesTr/a_0000.nii.gz",
        "labelsTr/a.nii.gz",
    ]
    assert said.lines == [
        "1 resampled as images, linearly: a_0000.nii.gz",
        "1 resampled as masks, by the nearest label: a.nii.gz",
    ]
    image, mask = read_image((done[0],)), read_label_map(done[1])
    assert image.geometry == mask.geometry
    for z in range(6):
        shifted = slice(5 - z, 5 - z + 9)  # each slice lies a voxel further to the front
        assert np.array_equal(image.array[0, z, shifted], IMAGE[:, :, z].T)
        assert np.array_equal(mask.array[z, shifted], MASK[:, :, z].T)
    assert nibabel.load(done[0]).get_data_dtype() == np.int16
    for name in ("imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz", "dataset.json"):
        assert (tmp_path / "new" / name).read_bytes() == before[tmp_path / "raw" / name]
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("name", "masks", "by_label"),
    [("scan", False, False), ("scan", True, True), ("scan_seg", False, True), ("scan.seg", False, True)],
)
def test_one_file(tmp_path: Path, name: str, masks: bool, by_label: bool) -> None:
    """Into a folder or into a file of another format; masks are known by their names, or by the option."""
    voxels = np.where(IMAGE > 0, 200, 0).astype(np.uint8)
    between = [*TILT[:6], 0.3, *TILT[7:]]
    path = write_tilted(tmp_path / f"{name}.nii.gz", voxels, between)
    [written] = straighten(path, tmp_path / "new", masks=masks)
    assert written == tmp_path / "new" / path.name
    assert (set(np.unique(read_image((written,)).array)) == {0, 200}) == by_label
    [other] = straighten(path, tmp_path / "straight.nrrd", masks=masks)
    assert np.array_equal(read_image((other,)).array, read_image((written,)).array)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_every_format_and_channels(tmp_path: Path, ending: str) -> None:
    """A series stays a series, and a vector a vector."""
    parts = [sitk.GetImageFromArray(part) for part in (IMAGE, IMAGE + 1)]
    for part in parts:
        part.SetDirection((1, 0, 0, 0, 1, 0.2, 0, 0, np.sqrt(1 - 0.04)))
    if ending == ".nii.gz":  # ITK writes no sheared NIfTI
        voxels = np.stack([IMAGE, IMAGE + 1], axis=-1)
        path = write_tilted(tmp_path / "a.nii.gz", voxels)
    else:
        path = tmp_path / f"a{ending}"
        sitk.WriteImage(sitk.Compose(parts), str(path))
    [written] = straighten(path, tmp_path / "new")
    volume = read_image((written,))
    inside = volume.array[0] != volume.array[0].min()
    assert inside.mean() > 0.4
    assert np.allclose((volume.array[1] - volume.array[0])[inside], 1)
    dimensions = sitk.ReadImage(str(written)).GetDimension()
    assert dimensions == (4 if ending == ".nii.gz" else 3)


def test_nothing_sheared_is_said(tmp_path: Path) -> None:
    """The copy is there all the same, for scripts."""
    write_tilted(tmp_path / "raw" / "a.nii", IMAGE, STRAIGHT)
    said = Listener()
    assert straighten(tmp_path / "raw", tmp_path / "new", reporter=said) == []
    assert said.lines == ["no image is sheared: the files were copied as they are"]
    assert (tmp_path / "new" / "a.nii").read_bytes() == (tmp_path / "raw" / "a.nii").read_bytes()


def test_mistakes(tmp_path: Path) -> None:
    """Each is said, and nothing half-written is left."""
    write_dataset(tmp_path / "raw")
    for source, output, text in (
        ("none", "new", r"none does not exist"),
        ("raw", "raw/new", r"raw/new lies in "),
        ("raw", "raw", r"raw exists already"),
        ("raw/imagesTr/a_0000.nii.gz", "raw/imagesTr", r"a_0000\.nii\.gz is the file itself"),
    ):
        with pytest.raises(UsageError, match=text):
            straighten(tmp_path / source, tmp_path / output)
    for name in ("a", "b"):
        (tmp_path / "raw" / "labelsTr" / f"{name}.nii.gz").write_bytes(b"no image")
    with pytest.raises(ProblemsError, match=r"2 problems|a\.nii\.gz"):
        straighten(tmp_path / "raw", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
