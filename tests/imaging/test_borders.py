"""Weights of borders equal a sum over all voxels of each component, in planes and volumes."""

import numpy as np
import pytest

from autoseg.imaging.borders import REACH, number_components, weigh_borders


def by_brute_force(components, sigma):
    """Returns the weights from the distances of each voxel to all voxels of each component."""
    voxels = np.stack(np.indices(components.shape), axis=-1)[..., None, :]
    distances = np.sort(
        [
            np.linalg.norm(voxels - np.argwhere(components == number), axis=-1).min(axis=-1)
            for number in range(1, components.max() + 1)
        ],
        axis=0,
    )
    return np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize("sigma", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("shape", [(23, 31), (9, 12, 11), (1, 20, 21)])
def test_equals_the_distances_to_all_voxels(shape, sigma):
    """Only what is further than the reach is left out, where the weight is next to nothing."""
    for seed in range(3):
        mask = np.random.default_rng(seed).random(shape) < 0.03
        components = number_components([mask])
        assert components.max() >= 2
        expected = by_brute_force(components, sigma)
        expected[expected < np.exp(-0.5 * REACH**2) * (1 - 1e-9)] = 0
        weights = weigh_borders(components, sigma)
        assert weights.dtype == np.float32
        assert np.allclose(weights, expected, atol=1e-6)


def test_two_cells_of_the_paper():
    """Two cells with a gap of one pixel: their gap weighs most, and what is far from it nothing."""
    cells = np.zeros((40, 60), dtype=bool)
    cells[10:30, 5:25] = cells[10:30, 26:46] = True
    weights = weigh_borders(number_components([cells]), 5.0)
    assert weights[20, 25] == pytest.approx(np.exp(-(2**2) / 50))  # one pixel to each side
    assert weights[20, 25] == weights.max()
    assert weights[20, 5] == pytest.approx(0, abs=4e-4)
    assert weights[20, 20] == pytest.approx(np.exp(-(6**2) / 50))  # inside: 0 and 6


@pytest.mark.parametrize("values", [[0, 0, 0, 0], [0, 1, 1, 0]])
def test_no_border_without_two_components(values):
    """A single component, or none, has no neighbour."""
    assert not weigh_borders(np.array(values, np.int32), 5.0).any()


def test_components_of_different_masks_are_never_one():
    """They may touch; their numbers go on from mask to mask."""
    left, right = np.zeros((2, 4, 6), dtype=bool)
    left[:, :3], right[:, 3:] = True, True
    right[0, 3:] = False
    numbers = number_components([left, right])
    assert numbers[1].tolist() == [1, 1, 1, 2, 2, 2]
    assert numbers.dtype == np.int32
