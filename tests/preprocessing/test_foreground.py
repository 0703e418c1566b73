"""The sample of foreground voxels of a case."""

import numpy as np
import pytest

from autoseg.preprocessing.foreground import FOREGROUND_SHARE, FOREGROUND_VOXELS, sample_foreground


@pytest.mark.parametrize("voxels", [FOREGROUND_VOXELS, FOREGROUND_VOXELS + 1, 150 * FOREGROUND_VOXELS])
def test_foreground_is_sampled_evenly_and_without_repeats(voxels: int) -> None:
    """Ten thousand voxels or one in a hundred, whichever is more, and the same ones each time."""
    label = np.zeros((2, 1000, 1000), dtype=np.int8)
    label.ravel()[-voxels:] = 3
    places = sample_foreground(label).voxels
    assert len(places) == max(FOREGROUND_VOXELS, int(np.ceil(FOREGROUND_SHARE * voxels)))
    flat = np.ravel_multi_index(tuple(places.T), label.shape)
    assert len(np.unique(flat)) == len(flat)
    assert (label.ravel()[flat] == 3).all()
    middle = label.size - voxels + (voxels - 1) / 2
    assert abs(flat.mean() - middle) < 0.02 * voxels
    assert abs(flat[: len(flat) // 2].mean() - middle) < 0.02 * voxels
    np.testing.assert_array_equal(sample_foreground(label).voxels, places)


def test_places_of_regions_are_those_of_all_their_numbers() -> None:
    """A voxel may be in several regions; one that does not occur has none."""
    label = np.array([[[0, 1, 2, 2, 3]]])
    found = sample_foreground(label, [(1, 2), (2,), (4,), (3, 2)])
    assert found.counts == (3, 2, 0, 3)
    groups = np.split(found.voxels[:, 2], np.cumsum(found.counts)[:-1])
    assert [sorted(group.tolist()) for group in groups] == [[1, 2, 3], [2, 3], [], [2, 3, 4]]
    assert found.labelled == 0
    assert found.draw_labelled(np.random.default_rng(0)) is None


def test_structures_are_drawn_evenly_however_large() -> None:
    """A lesion of one voxel is seen as often as its organ."""
    label = np.ones((1, 1, 1000), dtype=np.int8)
    label[0, 0, 7] = 2
    found, random = sample_foreground(label), np.random.default_rng(0)
    assert 60 < sum(found.draw(random) == (0, 0, 7) for _ in range(150)) < 90


def test_voxels_that_were_labelled_are_known_where_some_were_not() -> None:
    """Background among them; of many a fair share."""
    label = np.array([[[0, 0, 1, 3, 3, -1]]])
    found, random = sample_foreground(label, [(1,)], ignore=3), np.random.default_rng(0)
    assert (found.counts, found.labelled) == ((1,), 4)
    assert {found.draw_labelled(random) for _ in range(100)} == {(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 5)}
    nothing = sample_foreground(np.full((1, 1, 4), 3), [(1,)], ignore=3)
    assert (nothing.draw(random), nothing.draw_labelled(random)) == (None, None)
