"""Cropping the masks of structures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.evaluation.masks import crop_masks
from autoseg.evaluation.metrics import case_overlaps
from autoseg.imaging.targets import Targets

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(
        arrays(np.int32, shape, elements=st.integers(-1, 6)), arrays(np.uint8, shape, elements=st.integers(0, 6))
    )
)


@given(PAIRS, st.lists(st.sets(st.integers(1, 5), min_size=1), max_size=3), st.none() | st.just(6))
@settings(max_examples=60, deadline=None)
def test_masks_hold_the_voxels_that_are_counted(pair, structures, ignore):
    """The masks of regions and overlapping structures agree with the overlap, also with ignored voxels."""
    targets = Targets(structures={str(n): tuple(numbers) for n, numbers in enumerate(structures)}, ignore=ignore)
    overlaps = case_overlaps(*pair, targets)
    cut = dict(crop_masks(*pair, targets))
    assert list(cut) == list(overlaps)
    for name, overlap in overlaps.items():
        reference, prediction = cut[name].reference, cut[name].prediction
        assert (reference & prediction).sum() == overlap.true_positive
        assert (prediction & ~reference).sum() == overlap.false_positive
        assert (reference & ~prediction).sum() == overlap.false_negative


def test_the_box_holds_both_masks_and_no_more():
    """It reaches from the first to the last voxel of either mask, so that small structures cost little."""
    reference, prediction = np.zeros((9, 9, 9), np.uint8), np.zeros((9, 9, 9), np.uint16)
    reference[2, 3, 4], prediction[4, 4, 4] = 5, 5
    [(name, pair)] = crop_masks(reference, prediction, Targets.of_labels({"cyst": 5}))
    assert (name, pair.reference.shape) == ("cyst", (3, 2, 1))
    assert np.argwhere(pair.reference).tolist() == [[0, 0, 0]]
    assert np.argwhere(pair.prediction).tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("structures", [{}, {"a": (3,)}])
def test_a_structure_that_is_nowhere_has_empty_masks(structures):
    """Numbers that belong to no structure are in no mask."""
    label_map = np.zeros((2, 2, 2), np.uint8)
    pairs = list(crop_masks(label_map, label_map, Targets(structures=structures)))
    assert [name for name, _ in pairs] == list(structures)
    assert not any(pair.reference.size or pair.prediction.size for _, pair in pairs)
