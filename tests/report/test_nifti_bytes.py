"""Bytes of NIfTI files, read by nibabel."""

import gzip

import nibabel
import numpy as np
import pytest

from autoseg.imaging.geometry import Geometry
from autoseg.report.nifti_bytes import encode_nifti

ANGLE = np.deg2rad(20)
OBLIQUE = (
    (1.0, 0.0, 0.0),
    (0.0, float(np.cos(ANGLE)), float(-np.sin(ANGLE))),
    (0.0, float(np.sin(ANGLE)), float(np.cos(ANGLE))),
)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("packed", [False, True])
def test_voxels_and_places_are_read_by_nibabel(tmp_path, dtype, packed):
    """Of any type, on an oblique grid; positions are those of autoseg with x and y turned."""
    geometry = Geometry(shape=(4, 5, 6), spacing_mm=(3.0, 2.0, 1.5), origin_mm=(-30.0, 20.0, 10.0), direction=OBLIQUE)
    array = np.arange(120).reshape(4, 5, 6).astype(dtype)
    content = encode_nifti(array, geometry, scale=(0.5, -3.0), window=(1.0, 9.0), packed=packed)
    path = tmp_path / "a.nii"
    path.write_bytes(gzip.decompress(content) if packed else content)
    image = nibabel.load(path)
    np.testing.assert_allclose(np.asarray(image.dataobj).T, array * 0.5 - 3, rtol=1e-6)
    index = np.array([3, 1, 2])  # z, y, x
    lps = np.asarray(geometry.origin_mm) + np.asarray(OBLIQUE) @ (index * np.asarray(geometry.spacing_mm))
    np.testing.assert_allclose(image.affine @ [2, 1, 3, 1], [-lps[2], -lps[1], lps[0], 1], rtol=1e-5)
    assert image.header.get_zooms() == (1.5, 2.0, 3.0)
    assert (float(image.header["cal_min"]), float(image.header["cal_max"])) == (1.0, 9.0)
