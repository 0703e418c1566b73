"""What dcm2niix makes of a DICOM series, to compare volumes with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import pytest

from autoseg.imaging.geometry import Geometry, Volume


def affine_of(geometry: Geometry) -> np.ndarray:
    """Returns the matrix from voxels (x, y, z) to right, anterior, superior in mm."""
    affine = np.eye(4)
    columns = np.asarray(geometry.direction) * np.asarray(geometry.spacing_mm)
    affine[:3, :3] = columns[::-1, ::-1]
    affine[:3, 3] = geometry.origin_mm[::-1]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def read_by_dcm2niix(folder: Path) -> nibabel.Nifti1Image:
    """Returns the only image that dcm2niix makes of a folder; skips the test if it is not installed."""
    program = shutil.which("dcm2niix", path=os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)]))
    if program is None:
        pytest.skip("dcm2niix is not installed")
    with TemporaryDirectory() as output:
        command = [program, "-z", "n", "-b", "n", "-x", "i", "-o", output, str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        [path] = Path(output).glob("*.nii")
        assert path.is_file(), result.stdout
        image = nibabel.load(path)
        return nibabel.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), image.affine)


def assert_same(volume: Volume, image: nibabel.Nifti1Image, *, rtol: float = 1e-6) -> None:
    """Checks that a volume has the voxels and the matrix of an image, whatever the order of its axes."""
    ours = nibabel.Nifti1Image(np.asarray(volume.array[0].T), affine_of(volume.geometry))
    ours, theirs = nibabel.as_closest_canonical(ours), nibabel.as_closest_canonical(image)
    np.testing.assert_allclose(ours.affine, theirs.affine, rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.asarray(ours.dataobj), np.asarray(theirs.dataobj), rtol=rtol, atol=1e-3)
