"""Small copies of volumes lie where the volumes lie, have their intensities, and lose no structure."""

import gzip

import nibabel
import numpy as np
import pytest

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.report.viewed_volumes import choose_blocks, encode_image, encode_mask, encode_whole


def read(tmp_path, content):
    """Reads the bytes of a NIfTI file."""
    path = tmp_path / "a.nii"
    path.write_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    return nibabel.load(path)


@pytest.mark.parametrize("shape", [(8, 16, 16), (7, 15, 13), (1, 40, 33)])
@pytest.mark.parametrize("most_voxels", [10**6, 200, 30])
def test_copy_has_the_mean_of_each_block_at_its_centre(tmp_path, shape, most_voxels):
    """Also where the blocks do not divide the volume: there the border is repeated."""
    geometry = Geometry(shape=shape, spacing_mm=(4.0, 1.0, 1.0), origin_mm=(5.0, 6.0, 7.0))
    array = np.random.default_rng(1).normal(100, 20, shape).astype(np.float32)
    blocks = choose_blocks(geometry, most_voxels)
    copy = read(tmp_path, encode_image(Volume(array=array, geometry=geometry), blocks))
    assert np.prod(copy.shape) <= most_voxels
    z, y, x = blocks.factors
    values = np.asarray(copy.dataobj).T
    array = np.pad(array, [(0, factor) for factor in blocks.factors], mode="edge")
    step = np.ptp(array) / 255
    np.testing.assert_allclose(values[0, 0, 0], array[:z, :y, :x].mean(), atol=step)
    np.testing.assert_allclose(values[0, 1, 1], array[:z, y : 2 * y, x : 2 * x].mean(), atol=step)
    centre = np.array([7 + (x - 1) / 2, 6 + (y - 1) / 2, 5 + 4 * (z - 1) / 2])
    np.testing.assert_allclose(copy.affine[:3, 3], centre * [-1, -1, 1], rtol=1e-5)


def test_no_structure_vanishes(tmp_path):
    """Neither one of half a block, nor one of a voxel; and none appears."""
    geometry = Geometry(shape=(8, 8, 8), spacing_mm=(1.0, 1.0, 1.0))
    array = np.zeros((8, 8, 8), np.uint8)
    array[:4], array[7, 7, 7] = 1, 5
    mask = read(tmp_path, encode_mask(Volume(array=array, geometry=geometry), choose_blocks(geometry, 64)))
    numbers = np.asarray(mask.dataobj).T
    assert (numbers[:2] == 1).all()
    assert np.argwhere(numbers == 5).tolist() == [[3, 3, 3]]
    assert set(np.unique(numbers)) == {0, 1, 5}


@pytest.mark.parametrize(
    ("dtype", "values", "stored"),
    [("float32", [0.5, 3], "float32"), ("float32", [-900, 3], "int16"), ("uint8", [0, 3], "uint8")],
)
def test_whole_volumes_are_exact(tmp_path, dtype, values, stored):
    """In the smallest type that holds them."""
    geometry = Geometry(shape=(1, 1, 2), spacing_mm=(1.0, 1.0, 1.0))
    volume = Volume(array=np.array([[values]], dtype=dtype), geometry=geometry)
    image = read(tmp_path, encode_whole(volume, 100))
    assert image.get_data_dtype() == stored
    assert np.asarray(image.dataobj).ravel().tolist() == values


def test_whole_volumes_are_bounded(tmp_path):
    """A volume of more voxels than a browser can hold is reduced, and so is its mask, to the same grid."""
    geometry = Geometry(shape=(10, 10, 10), spacing_mm=(1.0, 1.0, 1.0))
    image = read(tmp_path, encode_whole(Volume(array=np.ones((10, 10, 10), np.float32), geometry=geometry), 200))
    mask = read(tmp_path, encode_whole(Volume(array=np.ones((10, 10, 10), np.uint8), geometry=geometry), 200))
    assert image.shape == mask.shape
    assert np.prod(image.shape) <= 200
