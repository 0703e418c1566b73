"""Surface distances, compared with brute force and with SimpleITK."""

import math
from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoseg.evaluation.masks import MaskPair
from autoseg.evaluation.surface import MeasurementGrid, SurfaceScores, compare_surfaces, find_border
from autoseg.imaging.geometry import Geometry

SPACINGS = st.tuples(*[st.sampled_from((0.5, 0.8, 1.0, 3.0))] * 3)
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 12))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))).filter(
    lambda pair: pair[0].any() and pair[1].any()
)


def grid_of(shape, spacing_mm=(1.0, 1.0, 1.0)):
    """Returns the measurement grid of an image."""
    return MeasurementGrid.of(Geometry(shape=shape, spacing_mm=spacing_mm))


def measure(reference, prediction, spacing_mm=(1.0, 1.0, 1.0), *, tolerance_mm=1.0):
    """Compares two masks of the same shape."""
    reference, prediction = (np.asarray(mask, dtype=bool) for mask in (reference, prediction))
    pair = MaskPair(reference=reference, prediction=prediction)
    return compare_surfaces(pair, grid_of(reference.shape, spacing_mm), tolerance_mm=tolerance_mm)


def naive_border(mask):
    """Lists the positions of border voxels, voxel by voxel; axes with a single voxel do not count."""
    axes = [axis for axis in range(3) if mask.shape[axis] > 1] or [0, 1, 2]
    found = []
    for place in product(*map(range, mask.shape)):
        neighbours = [
            tuple(place[other] + step * (other == axis) for other in range(3)) for axis in axes for step in (-1, 1)
        ]
        inside = [
            all(0 <= at < size for at, size in zip(one, mask.shape, strict=True)) and mask[one] for one in neighbours
        ]
        if mask[place] and not all(inside):
            found.append(place)
    return found


def naive_distances(border, other, spacing_mm):
    """Returns the distance from each position to the nearest of the other border, by trying all."""
    return [
        min(
            math.sqrt(sum(((a - b) * size) ** 2 for a, b, size in zip(place, there, spacing_mm, strict=True)))
            for there in other
        )
        for place in border
    ]


@given(PAIRS, SPACINGS, st.sampled_from((0.0, 1.0, 2.5)))
@settings(max_examples=80, deadline=None)
def test_scores_equal_brute_force(pair, spacing_mm, tolerance_mm):
    """Trying all pairs of border voxels gives the same three numbers, for any spacing."""
    one, other = (naive_border(mask) for mask in pair)
    forth, back = naive_distances(one, other, spacing_mm), naive_distances(other, one, spacing_mm)
    scores = measure(*pair, spacing_mm, tolerance_mm=tolerance_mm)
    within = sum(distance <= tolerance_mm + 1e-9 for distance in forth + back)
    assert scores.nsd == pytest.approx(within / len(forth + back))
    assert scores.hd95_mm == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)))
    assert scores.assd_mm == pytest.approx(sum(forth + back) / len(forth + back), abs=1e-12)


def ball(shape, centre, radii):
    """Makes an ellipsoid with a rough surface."""
    places = np.stack(np.indices(shape), axis=-1)
    rough = np.random.default_rng(0).random(shape) * 0.3
    return (((places - centre) / radii) ** 2).sum(axis=-1) + rough < 1


def distances_by_sitk(mask, other, spacing_mm):
    """Returns the distances of a mask's contour voxels from the other contour, from SimpleITK alone."""
    contours = []
    for one in (mask, other):
        image = sitk.GetImageFromArray(np.pad(one, 1).astype(np.uint8))
        image.SetSpacing(spacing_mm[::-1])
        contours.append(sitk.LabelContour(image, fullyConnected=False))
    away = sitk.SignedMaurerDistanceMap(contours[1], squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayFromImage(away), 0)[sitk.GetArrayFromImage(contours[0]) > 0]


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.7)])
@pytest.mark.parametrize("centre", [(10, 15, 15), (10, 17, 12), (14, 25, 26)])
def test_scores_equal_those_by_simpleitk(centre, spacing_mm):
    """Contours and distance maps of SimpleITK give the same numbers for close, shifted and far organs."""
    one, other = ball((20, 36, 36), (10, 15, 15), (6, 9, 9)), ball((20, 36, 36), centre, (4, 8, 6))
    forth, back = distances_by_sitk(one, other, spacing_mm), distances_by_sitk(other, one, spacing_mm)
    every = np.concatenate([forth, back])
    scores = measure(one, other, spacing_mm, tolerance_mm=1.9)
    assert scores.nsd == pytest.approx(np.mean(every <= 1.9))
    assert scores.hd95_mm == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)), abs=1e-4)
    assert scores.assd_mm == pytest.approx(every.mean(), abs=1e-4)


@given(PAIRS, SPACINGS)
@settings(max_examples=20, deadline=None)
def test_both_directions_count_alike(pair, spacing_mm):
    """Reference and prediction may be swapped; a mask has distance 0 from itself."""
    there, back = measure(*pair, spacing_mm), measure(*pair[::-1], spacing_mm)
    assert (there.nsd, there.hd95_mm) == (back.nsd, back.hd95_mm)
    assert there.assd_mm == pytest.approx(back.assd_mm)
    assert measure(pair[0], pair[0], spacing_mm) == SurfaceScores(nsd=1.0, hd95_mm=0.0, assd_mm=0.0)


def test_hd95_is_the_larger_of_two_percentiles():
    """A far island of the prediction counts among the distances of its own surface only."""
    reference, prediction = np.zeros((1, 2, 60), bool), np.zeros((1, 2, 60), bool)
    reference[:, :, :19] = prediction[:, :, :19] = True
    prediction[:, :, 58] = True
    assert measure(reference, prediction).hd95_mm == pytest.approx(np.percentile([0] * 38 + [40, 40], 95))
    assert np.percentile([0] * 76 + [40, 40], 95) == 0  # what a percentile of both together would say


def test_the_surface_of_a_plane_is_its_contour():
    """Across a single slice nothing is outside the mask, so the middle of a square is no border."""
    mask = np.ones((1, 5, 5), dtype=bool)
    border = find_border(mask, grid_of(mask.shape).axes)
    assert border.sum() == 16
    assert not border[0, 1:4, 1:4].any()
    assert grid_of((1, 3, 4), (50.0, 1.0, 1.0)).diagonal_mm == 5


def test_the_border_of_the_image_is_a_surface():
    """Voxels outside the image are outside the mask."""
    assert find_border(np.ones((4, 4, 4), dtype=bool), (0, 1, 2)).sum() == 4**3 - 2**3


@pytest.mark.parametrize(("spacing", "share"), [(1.0000001, 1.0), (1.01, 0.0)])
def test_rounded_spacings_are_within_the_tolerance(spacing, share):
    """A distance of 1 mm is within 1 mm, also if the header holds a rounded number."""
    reference, prediction = np.zeros((1, 1, 9), bool), np.zeros((1, 1, 9), bool)
    reference[..., 3], prediction[..., 4] = True, True
    assert measure(reference, prediction, (1.0, 1.0, spacing)).nsd == share


def test_no_distance_is_longer_than_the_diagonal():
    """The diagonal is longer than the distance between opposite corners."""
    shape, spacing_mm = (3, 4, 5), (3.0, 1.0, 0.5)
    reference, prediction = np.zeros(shape, bool), np.zeros(shape, bool)
    reference[0, 0, 0] = prediction[-1, -1, -1] = True
    assert measure(reference, prediction, spacing_mm).hd95_mm < grid_of(shape, spacing_mm).diagonal_mm
    assert grid_of(shape, spacing_mm).diagonal_mm == pytest.approx(math.sqrt(9**2 + 4**2 + 2.5**2))
    assert grid_of((1, 1, 1)).diagonal_mm > 0


def test_an_empty_mask_has_no_surface():
    """The caller must decide on empty masks."""
    with pytest.raises(ValueError, match="no surface"):
        measure(np.zeros((2, 2, 2)), np.ones((2, 2, 2)))
