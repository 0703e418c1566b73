"""Independent readers and checkers of DICOM objects: dciodvfy, dcmqi and highdicom."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TOLERANCE_MM = 1e-4


def find_program(name: str) -> str:
    """Returns the path of a program beside Python or on the path; skips the test where it is not installed."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def list_errors(path: Path) -> list[str]:
    """Returns the errors that dciodvfy finds in an object."""
    result = subprocess.run([find_program("dciodvfy"), str(path)], capture_output=True, text=True, check=False)
    return [line for line in (result.stdout + result.stderr).splitlines() if "Error" in line]


def put_on_grid(array: np.ndarray, from_affine: np.ndarray, affine: np.ndarray, shape) -> np.ndarray:
    """Returns an array with its nonzero voxels where they lie on another grid, whose voxels must meet its own.

    Args:
        array: Array with the axes that `from_affine` takes.
        from_affine: Matrix from an index of `array` to mm.
        affine: Matrix from an index (x, y, z) of the grid to mm.
        shape: Shape (z, y, x) of the grid.
    """
    index = np.argwhere(array)
    points = from_affine[:3, :3] @ index.T + from_affine[:3, 3:]
    exact = np.linalg.solve(affine[:3, :3], points - affine[:3, 3:])
    nearest = np.rint(exact)
    assert np.abs(affine[:3, :3] @ (exact - nearest)).max(initial=0) < TOLERANCE_MM
    placed = np.zeros(shape, array.dtype)
    placed[tuple(nearest.astype(int)[::-1])] = array[tuple(index.T)]
    return placed


def read_by_highdicom(path: Path, affine: np.ndarray, shape) -> dict[str, np.ndarray]:
    """Returns the mask of each segment of an object, by its label, on a grid; see `put_on_grid`."""
    from highdicom.seg import segread

    segmentation = segread(path)
    volume = segmentation.get_volume(allow_missing_positions=True, rescale_fractional=False)
    labels = [segmentation.get_segment_description(n).SegmentLabel for n in segmentation.segment_numbers]
    return {
        label: put_on_grid(volume.array[..., number], volume.affine, affine, shape)
        for number, label in enumerate(labels)
    }


def read_by_dcmqi(path: Path, folder: Path, affine: np.ndarray, shape) -> dict[str, np.ndarray]:
    """Returns the mask of each segment of an object, by its label, as dcmqi's segimage2itkimage reads it."""
    import nibabel

    folder.mkdir()
    command = [find_program("segimage2itkimage"), "--inputDICOM", str(path), "--outputDirectory", str(folder)]
    result = subprocess.run([*command, "--outputType", "nii"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    masks = {}
    for group, attributes in enumerate(json.loads((folder / "meta.json").read_text())["segmentAttributes"], start=1):
        image = nibabel.load(folder / f"{group}.nii.gz")
        from_affine = np.diag([-1, -1, 1, 1]) @ image.affine
        array = np.asanyarray(image.dataobj).astype(np.int64)
        for segment in attributes:
            mask = (array == segment["labelID"]).astype(np.uint8)
            masks[segment["SegmentLabel"]] = put_on_grid(mask, from_affine, affine, shape)
    return masks


def read_by_plastimatch(path: Path, series: Path, folder: Path, affine: np.ndarray, shape) -> dict[str, np.ndarray]:
    """Returns the mask of each structure of a structure set, by its name, as plastimatch fills its contours."""
    import nibabel

    command = [find_program("plastimatch"), "convert", "--input", str(path), "--referenced-ct", str(series)]
    output = ["--output-prefix", str(folder), "--prefix-format", "nii.gz"]
    subprocess.run([*command, *output], capture_output=True, check=True)
    masks = {}
    for file in folder.iterdir():
        image = nibabel.load(file)
        from_affine = np.diag([-1, -1, 1, 1]) @ image.affine
        mask = (np.asanyarray(image.dataobj) != 0).astype(np.uint8)
        masks[file.name.removesuffix(".nii.gz")] = put_on_grid(mask, from_affine, affine, shape)
    return masks


def draw_by_plastimatch(mask: Path, series: Path, folder: Path) -> None:
    """Writes the structure set that plastimatch makes of a mask in an image file on the slices of a series."""
    command = [find_program("plastimatch"), "convert", "--input-ss-img", str(mask), "--referenced-ct", str(series)]
    subprocess.run([*command, "--output-dicom", str(folder)], capture_output=True, check=True)
