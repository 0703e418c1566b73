"""Lesions found, missed and falsely detected, compared with SciPy's components."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from autoseg.evaluation.lesions import LesionCounts, count_lesions
from autoseg.evaluation.masks import MaskPair

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 7))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape)))


def counts(reference, prediction):
    """Counts the lesions of two masks."""
    pair = MaskPair(reference=np.asarray(reference, dtype=bool), prediction=np.asarray(prediction, dtype=bool))
    return count_lesions(pair)


def counts_by_scipy(reference, prediction):
    """Counts the lesions by labelled components, one component after the other."""
    cube = np.ones((3, 3, 3))
    actual, lesions = ndimage.label(reference, cube)
    guessed, components = ndimage.label(prediction, cube)
    found = sum(prediction[actual == number].any() for number in range(1, lesions + 1))
    right = sum(reference[guessed == number].any() for number in range(1, components + 1))
    return LesionCounts(found=int(found), missed=int(lesions - found), false=int(components - right))


@given(PAIRS)
@settings(max_examples=100, deadline=None)
def test_counts_equal_those_of_labelled_components(pair):
    """Voxels that touch by a face, an edge or a corner are one lesion, also at the borders of the image."""
    assert counts(*pair) == counts_by_scipy(*pair)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_counts_of_large_masks_equal_those_of_labelled_components(share):
    """Masks of noise have hundreds of components of all shapes."""
    random = np.random.default_rng(7)
    pair = [random.random((12, 30, 41)) < share for _ in range(2)]
    assert counts(*pair) == counts_by_scipy(*pair)


def test_each_kind_is_counted():
    """One lesion is hit by two components, one is missed, and one is a false detection."""
    reference = [[[1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0]]]
    prediction = [[[1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1]]]
    found = counts(reference, prediction)
    assert found == LesionCounts(found=1, missed=1, false=1)
    assert found.f1 == 0.5


@pytest.mark.parametrize("place", [(0, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_voxels_that_touch_are_one_lesion(place):
    """Voxels touch by a face, an edge or a corner; a voxel one farther is another lesion."""
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[0, 0, 0] = mask[place] = True
    assert counts(mask, mask).found == 1
    apart = np.zeros((3, 3, 3), dtype=bool)
    apart[0, 0, 0] = apart[tuple(2 * at for at in place)] = True
    assert counts(apart, apart).found == 2


def test_without_lesions_there_is_no_score():
    """Two empty masks have no score; a false detection or a missed lesion alone scores 0."""
    nothing, something = np.zeros((2, 2, 2)), np.ones((2, 2, 2))
    assert math.isnan(counts(nothing, nothing).f1)
    assert counts(nothing, something).f1 == counts(something, nothing).f1 == 0
    assert counts(np.zeros((0, 0, 0)), np.zeros((0, 0, 0))) == LesionCounts(found=0, missed=0, false=0)
