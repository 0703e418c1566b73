"""A series of results has the time step of its scan, as nibabel and SimpleITK read it."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nifti_files import write_nifti

from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_image, transform_image, write_label_map, write_series
from autoseg.imaging.image_headers import read_image_header

VOXELS = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
MM, SECONDS, MILLISECONDS, MICROSECONDS = 2, 8, 16, 24
SFORM = [-1, 0, 0, 10, 0, -1, 0, 20, 0, 0, 2, -30]
NAN = float("nan")


def write_scan(path: Path, step: float, units: int) -> Path:
    """Writes a series of five volumes."""
    if path.suffix == ".nii":
        fields = {"pixdim": [1, 1, 1, 2, step, 1, 1, 1], "sform_code": 1, "srow": SFORM, "xyzt_units": MM | units}
        return write_nifti(path, VOXELS, **fields)
    image = sitk.GetImageFromArray(VOXELS.T, isVector=False)
    image.SetSpacing((1.0, 1.0, 2.0, step))
    sitk.WriteImage(image, str(path))
    return path


def seconds_of(path: Path) -> float:
    """The time step of a file, by nibabel or SimpleITK."""
    if path.suffix != ".nii":
        return sitk.ReadImage(str(path)).GetSpacing()[3]
    header = nibabel.load(path).header
    factor = {"sec": 1, "unknown": 1, "msec": 1e-3, "usec": 1e-6}[header.get_xyzt_units()[1]]
    return float(header.get_zooms()[3]) * factor


@pytest.mark.parametrize("target", ["mask.nii", "mask.nrrd", "mask.mha"])
@pytest.mark.parametrize(
    ("source", "step", "units", "seconds"),
    [
        ("a.nii", 0.035, SECONDS, 0.035),
        ("a.nii", 35.0, MILLISECONDS, 0.035),
        ("a.nii", 35000.0, MICROSECONDS, 0.035),
        ("a.nii", 0.5, 0, 0.5),  # the unit is unknown
        ("a.nii", 0.0, SECONDS, 1.0),
        ("a.nii", NAN, SECONDS, 1.0),
        ("a.nrrd", 0.035, 0, 0.035),
        ("a.mha", 0.035, 0, 0.035),
    ],
)
def test_results_have_the_time_step_of_their_scan(tmp_path: Path, source, step, units, seconds, target) -> None:
    """In the unit of time of the scan, and also in a file that is straightened."""
    scan = write_scan(tmp_path / source, step, units)
    assert read_image_header(scan).time_step_s == pytest.approx(seconds)
    volume = read_image((scan,))
    for point in range(5):
        mask = Volume(array=(volume.array[point] > 60).astype(np.uint8), geometry=volume.geometry)
        write_label_map(tmp_path / f"{point}.nii.gz", mask)
    write_series(tmp_path / target, [tmp_path / f"{point}.nii.gz" for point in range(5)], scan)
    transform_image(scan, tmp_path / f"straight_{target}", lambda volume: volume)
    for path in (tmp_path / target, tmp_path / f"straight_{target}"):
        assert seconds_of(path) == pytest.approx(seconds)
        assert read_image((path,)).geometry.difference(volume.geometry) is None


def test_a_list_of_volumes_has_none(tmp_path: Path) -> None:
    """3D Slicer writes an axis without a direction, whose steps only its own notes state."""
    lines = ["NRRD0004", "type: uchar", "dimension: 4", "sizes: 2 2 2 2", "kinds: list domain domain domain"]
    lines += ["space: LPS", "space directions: none (1,0,0) (0,1,0) (0,0,1)", "encoding: raw", "\n"]
    path = tmp_path / "a.nrrd"
    path.write_bytes("\n".join(lines).encode() + bytes(16))
    header = read_image_header(path)
    assert (header.volumes, header.time_step_s) == (2, 1.0)
