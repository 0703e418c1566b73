"""Where the foreground of a case is."""

import numpy as np
import pytest

from autoseg.data.foreground import FOREGROUND_SHARE, FOREGROUND_VOXELS, sample_foreground


@pytest.mark.parametrize("voxels", [FOREGROUND_VOXELS, FOREGROUND_VOXELS + 1, 150 * FOREGROUND_VOXELS])
def test_foreground_is_sampled_evenly_and_without_repeats(voxels: int) -> None:
    """Ten thousand voxels or one in a hundred, whichever is more, and the same ones each time."""
    label = np.zeros((2, 1000, 1000), dtype=np.int8)
    label.ravel()[-voxels:] = 3
    places = sample_foreground(label).places
    assert len(places) == max(FOREGROUND_VOXELS, int(np.ceil(FOREGROUND_SHARE * voxels)))
    flat = np.ravel_multi_index(tuple(places.T), label.shape)
    assert len(np.unique(flat)) == len(flat)
    assert (label.ravel()[flat] == 3).all()
    middle = label.size - voxels + (voxels - 1) / 2
    assert abs(flat.mean() - middle) < 0.02 * voxels
    assert abs(flat[: len(flat) // 2].mean() - middle) < 0.02 * voxels
    np.testing.assert_array_equal(sample_foreground(label).places, places)
