"""Skeletons are thin, keep what is connected, and are thickened by one voxel inside their mask."""

import numpy as np
import pytest
from scipy import ndimage

from autoseg.imaging.skeletons import find_skeleton, find_tube


def tubes(shape):
    """Returns the mask of a cross of two thick bars, through the middle of an array."""
    mask = np.zeros(shape, dtype=bool)
    middle = [size // 2 for size in shape]
    for axis in (len(shape) - 1, len(shape) - 2):
        bar = [slice(at - 1, at + 2) for at in middle]
        bar[axis] = slice(2, shape[axis] - 2)
        mask[tuple(bar)] = True
    return mask


@pytest.mark.parametrize("shape", [(21, 25), (9, 21, 25)])
def test_skeleton_is_thin_and_whole(shape):
    """It lies in the middle of both bars, is one piece, and has about as many voxels as the bars are long."""
    mask = tubes(shape)
    skeleton = find_skeleton(mask)
    assert not (skeleton & ~mask).any()
    assert ndimage.label(skeleton, structure=np.ones((3,) * mask.ndim))[1] == 1
    lengths = sum(size - 4 for size in shape[-2:])
    assert lengths - 10 <= skeleton.sum() <= lengths
    middle = [size // 2 for size in shape]
    assert skeleton[(*middle[:-1], slice(5, shape[-1] - 5))].mean() > 0.8


def test_plane_is_the_same_as_a_volume_of_one_slice():
    """Label maps of planes come as volumes of one slice; whichever axis that is."""
    mask = tubes((21, 25))
    for axis in range(3):
        assert np.array_equal(find_skeleton(np.expand_dims(mask, axis)).squeeze(axis), find_skeleton(mask))


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4)])
def test_nothing_has_no_skeleton(shape):
    """Nor a tube."""
    assert not find_skeleton(np.zeros(shape, dtype=bool)).any()
    assert not find_tube(np.zeros(shape, dtype=bool)).any()


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1, 7), (1, 1, 1), (1, 1)])
def test_a_row_is_its_own_skeleton(shape):
    """Voxels in a row are a line already."""
    mask = np.ones(shape, dtype=bool)
    assert np.array_equal(find_skeleton(mask), mask)


def test_tube_holds_the_neighbours_of_the_skeleton():
    """Each voxel of the mask with a skeleton voxel beside it, by a loop over all voxels."""
    mask = np.random.default_rng(0).random((6, 9, 9)) < 0.8
    mask[2:5, 1:8, 1:8] = True
    skeleton, tube = find_skeleton(mask), find_tube(mask)
    for voxel in np.ndindex(mask.shape):
        around = tuple(slice(max(0, at - 1), at + 2) for at in voxel)
        assert tube[voxel] == (mask[voxel] and skeleton[around].any())
    assert tube.sum() < mask.sum()
