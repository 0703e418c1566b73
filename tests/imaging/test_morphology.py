"""Holes and openings, against plain definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.morphology import fill_holes, open_mask
from autoseg.imaging.postprocessing import Opening, PostprocessingRules, apply_rules, apply_to_mask

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


def flood_from_border(mask):
    """The voxels outside a mask from which a way through faces leads beyond the image."""
    padded = np.pad(mask, 1)
    reached = np.zeros_like(padded)
    waiting = [(0, 0, 0)]
    while waiting:
        voxel = waiting.pop()
        if all(0 <= at < size for at, size in zip(voxel, padded.shape, strict=True)) and not (
            padded[voxel] or reached[voxel]
        ):
            reached[voxel] = True
            for axis in range(3):
                for step in (-1, 1):
                    waiting.append(tuple(at + step * (number == axis) for number, at in enumerate(voxel)))
    return reached[1:-1, 1:-1, 1:-1]


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, share=st.sampled_from([0.2, 0.6, 0.9]), seed=st.integers(0, 999))
def test_holes_are_what_no_way_leads_out_of(shape, share, seed):
    """By flooding from the border of the image, voxel by voxel."""
    mask = np.random.default_rng(seed).random(shape) < share
    np.testing.assert_array_equal(fill_holes(mask, dimensions=3), ~flood_from_border(mask))


def test_holes_of_a_plane_are_closed_in_the_plane():
    """Its single slice has no above and below."""
    mask = np.ones((1, 3, 3), bool)
    mask[0, 1, 1] = False
    assert fill_holes(mask, dimensions=2).all()
    np.testing.assert_array_equal(fill_holes(mask, dimensions=3), mask)


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    share=st.sampled_from([0.5, 0.9, 1.0]),
    radius=st.sampled_from([0.4, 1.0, 1.6, 3.0]),
    seed=st.integers(0, 999),
)
def test_what_stays_is_reached_by_a_ball_inside(shape, share, radius, seed):
    """Centres are voxels that are farther than the radius from all voxels outside; distances are in mm."""
    spacing = np.array([2.0, 1.0, 0.7])
    mask = np.random.default_rng(seed).random(shape) < share
    inside, outside = np.argwhere(mask) * spacing, np.argwhere(~mask) * spacing
    far = [not len(outside) or np.linalg.norm(outside - point, axis=1).min() > radius + 1e-9 for point in inside]
    centres = inside[np.array(far, dtype=bool)] if len(inside) else inside
    wanted = np.zeros_like(mask)
    for point in inside:
        if len(centres) and np.linalg.norm(centres - point, axis=1).min() <= radius + 1e-9:
            wanted[tuple(np.rint(point / spacing).astype(int))] = True
    np.testing.assert_array_equal(open_mask(mask, radius, tuple(spacing)), wanted)


def test_rules_fill_background_alone_and_open_last():
    """A hole that is another label stays; a bridge goes; masks have the same rules."""
    array = np.zeros((5, 5, 16), np.uint8)
    array[:, :, :5], array[:, :, 10:15], array[2, 2, 5:10] = 1, 1, 1
    array[2, 2, 2], array[2, 2, 12] = 0, 2
    geometry = Geometry(shape=array.shape, spacing_mm=(1.0, 1.0, 1.0))
    rules = PostprocessingRules(fill_holes=((1,),), opening=(Opening(structure=(1,), radius_mm=1.0),))
    cleaned = apply_rules(Volume(array=array, geometry=geometry), rules).array
    assert cleaned[2, 2, 2] == 1
    assert cleaned[2, 2, 12] == 2
    assert (cleaned[2, 2, 6:9] == 0).all()
    assert rules.describe() == "postprocessing: fill the holes of label 1, then open label 1 by 1 mm"
    mask = Volume(array=(array == 1).astype(np.uint8), geometry=geometry)
    as_mask = apply_to_mask(mask, (1,), rules).array
    assert as_mask[2, 2, 2] == as_mask[2, 2, 12] == 1
    assert (as_mask[2, 2, 6:9] == 0).all()
    np.testing.assert_array_equal(apply_to_mask(mask, (2,), rules).array, mask.array)
    assert PostprocessingRules.parse(rules.to_json(), source="text") == rules


@pytest.mark.parametrize("mask", [np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)])
def test_nothing_and_everything_stay(mask):
    """Also where there is no border to measure from."""
    np.testing.assert_array_equal(open_mask(mask, 5.0, (1.0, 1.0, 1.0)), mask)
    np.testing.assert_array_equal(fill_holes(mask, dimensions=3), mask)
