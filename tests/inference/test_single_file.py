"""One scan is segmented into one file that the user names."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of

from autoseg.errors import UsageError
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_image, read_label_map, write_image
from autoseg.imaging.image_headers import is_series
from autoseg.imaging.sitk_conversion import to_sitk
from autoseg.inference.single_file import names_a_file
from autoseg.pipeline import predict


def scans_of(root: Path) -> list[Path]:
    """The new scan."""
    return sorted((folders_of(root).raw / "imagesTs").iterdir())


def run(root: Path, output: Path, source: Path | None = None, **options) -> list[Path]:
    """Predicts with the model of a workspace."""
    scan = scans_of(root)[0] if source is None else source
    return predict(scan, output, number=NUMBER, folds=0, workspace=root, device="cpu", mirroring=False, **options)


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "MASK.NII.GZ"])
def test_the_file_is_the_mask_and_nothing_lies_beside_it(trained_volumes: Path, tmp_path: Path, name: str) -> None:
    """The ending chooses the format; an earlier file is replaced."""
    [in_folder] = run(trained_volumes, tmp_path / "folder")
    output = tmp_path / "new" / name
    for _ in range(2):
        assert run(trained_volumes, output) == [output]
    assert [path.name for path in output.parent.iterdir()] == [name]
    expected, mask = read_label_map(in_folder), read_label_map(output)
    assert np.array_equal(mask.array, expected.array)
    assert mask.geometry.difference(expected.geometry) is None


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("mask.jpg", {}, r"results cannot be written as \.jpg; choose \.png"),
        ("mask.mhd", {}, r"results cannot be written as \.mhd; choose \.mha"),
        ("mask.nii.gz", {"probabilities": "all"}, "is one file, which holds neither probabilities"),
        ("mask.nii.gz", {"resume": True}, "nor goes on after a stop; give a folder with -o"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(trained_volumes: Path, tmp_path: Path, name, options, text) -> None:
    """Before any work, and nothing is written."""
    with pytest.raises(UsageError, match=text):
        run(trained_volumes, tmp_path / "out" / name, **options)
    assert not (tmp_path / "out").exists()


def test_several_scans_need_a_folder(trained_volumes: Path, tmp_path: Path) -> None:
    """A folder that is named like a file is a folder if it is there already; the scan itself is not replaced."""
    images = folders_of(trained_volumes).raw / "imagesTr"
    with pytest.raises(UsageError, match=r"is one file, and there are \d+ scans; give a folder"):
        run(trained_volumes, tmp_path / "mask.nii.gz", images)
    [scan] = scans_of(trained_volumes)
    copy = tmp_path / "scan.nii.gz"
    copy.write_bytes(scan.read_bytes())
    with pytest.raises(UsageError, match="is the scan itself"):
        run(trained_volumes, copy, copy)
    assert copy.read_bytes() == scan.read_bytes()
    (tmp_path / "folder.nii.gz").mkdir()
    assert not names_a_file(tmp_path / "folder.nii.gz")


def write_cine(root: Path, path: Path, points: int = 3) -> list[np.ndarray]:
    """Writes a series of the new scan, which moves by a voxel per point in time; returns its volumes."""
    scan = read_image((scans_of(root)[0],))
    volumes = [np.roll(scan.array[0], point, axis=2) for point in range(points)]
    images = [to_sitk(Volume(array=volume, geometry=scan.geometry)) for volume in volumes]
    sitk.WriteImage(sitk.JoinSeries(images, 0.0, 0.04), str(path))
    return volumes


def test_each_point_in_time_is_a_scan(trained_volumes: Path, tmp_path: Path) -> None:
    """A series of a model of one channel becomes a result per point in time, or a series of label maps in one file."""
    (tmp_path / "scans").mkdir()
    cine = tmp_path / "scans" / "heart.nii.gz"
    volumes = write_cine(trained_volumes, cine)
    listener = Listener()
    written = run(trained_volumes, tmp_path / "masks", tmp_path / "scans", reporter=listener)
    assert [path.name for path in written] == [f"heart_t0{point}.nii.gz" for point in range(3)]
    assert "heart.nii.gz: 3 points in time, each of which is segmented as a scan of its own" in listener.lines
    grid = read_image((scans_of(trained_volumes)[0],)).geometry
    for volume, result in zip(volumes, written, strict=True):
        write_image(tmp_path / "point.nii.gz", Volume(array=volume[np.newaxis], geometry=grid))
        [alone] = run(trained_volumes, tmp_path / "alone", tmp_path / "point.nii.gz")
        assert np.array_equal(read_label_map(result).array, read_label_map(alone).array)
    with (tmp_path / "masks" / "report.csv").open() as report:
        assert [row.split(",")[0] for row in report][1:] == ["heart_t00", "heart_t01", "heart_t02"]
    [series] = run(trained_volumes, tmp_path / "heart_mask.nii.gz", cine)
    stacked = sitk.GetArrayFromImage(sitk.ReadImage(str(series)))
    assert np.array_equal(stacked, [read_label_map(result).array for result in written])
    assert is_series(series)
    assert nibabel.load(series).header.get_zooms()[3] == pytest.approx(0.04)
    with pytest.raises(UsageError, match=r"\.bmp holds no series over time; choose"):
        run(trained_volumes, tmp_path / "mask.bmp", cine)
