"""Contours hold the pixels of their mask and no others, however they are filled."""

import numpy as np
import pytest
from contour_filling import fill
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from autoseg.dicom.contours import trace_contours

RING = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])


@settings(max_examples=150, deadline=None)
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_filled_contours_are_the_mask(mask):
    """By crossings, by windings, as a union and as a symmetric difference: any mask, up to its border."""
    assert np.array_equal(fill(trace_contours(mask), mask.shape), mask)


def test_an_island_in_a_hole_has_a_contour_of_its_own():
    """The ring is one keyhole around its hole."""
    contours = list(trace_contours(RING))
    assert len(contours) == 2
    assert np.array_equal(fill(contours, RING.shape), RING)


def test_points_of_straight_borders_are_left_out():
    """A rectangle has its corners alone, each cut off between two pixels."""
    (contour,) = trace_contours(np.ones((40, 60), np.uint8))
    assert len(contour) == 8
    assert contour.min(axis=0).tolist() == [-0.5, -0.5]
    assert contour.max(axis=0).tolist() == [59.5, 39.5]


@pytest.mark.timeout(60)
def test_thousands_of_holes_take_no_time():
    """A sieve of noise: the contours of all islands and holes still are the mask."""
    mask = np.random.default_rng(0).random((400, 400)) > 0.3
    contours = list(trace_contours(mask))
    assert max(map(len, contours)) > 10_000
    rows = np.arange(0, 400, 57)
    crossings = np.zeros((len(rows), 400), int)
    for points in contours:
        after = np.roll(points, -1, axis=0)
        for index, row in enumerate(rows):
            spans = (np.minimum(points[:, 1], after[:, 1]) <= row) & (np.maximum(points[:, 1], after[:, 1]) > row)
            (x, y), (next_x, next_y) = points[spans].T, after[spans].T
            at = np.sort(x + (row - y) * (next_x - x) / (next_y - y))
            crossings[index] += len(at) - np.searchsorted(at, np.arange(400), side="right")
    assert np.array_equal(crossings % 2 == 1, mask[rows])


@pytest.mark.parametrize("shape", [(1, 1), (5, 7)])
def test_an_empty_mask_has_no_contour(shape):
    """Nothing is nothing."""
    assert list(trace_contours(np.zeros(shape))) == []
