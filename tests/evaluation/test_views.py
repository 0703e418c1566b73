"""Planes in radiological display convention, wherever the axes of a file point."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.evaluation.views import choose_views, find_fullest_slice, find_reorientation
from autoseg.imaging.geometry import Geometry, Volume

SHAPE = (4, 6, 8)
SPACING_MM = (3.0, 2.0, 1.0)
TURNS = st.sampled_from([(axes, signs) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)])


def scene(shape=SHAPE, spacing_mm=SPACING_MM, dimensions=3):
    """Makes image, reference and prediction in the frame of the patient: every voxel differs, one is foreground."""
    geometry = Geometry(shape=shape, spacing_mm=spacing_mm, dimensions=dimensions)
    image = 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    reference = np.zeros(shape, dtype=np.uint8)
    reference[tuple(size // 4 for size in shape)] = 1
    return (
        Volume(array=image, geometry=geometry),
        Volume(array=reference, geometry=geometry),
        Volume(array=np.zeros_like(reference), geometry=geometry),
    )


def stored(volume, axes, signs):
    """Returns the same volume with other axes in the file."""
    turned = volume.permute(axes)
    steps = tuple(slice(None, None, sign) for sign in signs)
    columns = np.asarray(turned.geometry.direction) * signs
    geometry = Geometry(
        shape=turned.geometry.shape,
        spacing_mm=turned.geometry.spacing_mm,
        direction=tuple(tuple(float(value) for value in row) for row in columns),
    )
    return Volume(array=turned.array[(..., *steps)], geometry=geometry)


@given(TURNS)
@settings(max_examples=48, deadline=None)
def test_the_picture_does_not_depend_on_how_the_file_is_stored(turn):
    """Any order and direction of axes gives the same three planes."""
    upright = choose_views(*scene())
    turned = choose_views(*(stored(volume, *turn) for volume in scene()))
    for expected, view in zip(upright, turned, strict=True):
        np.testing.assert_array_equal(view.image, expected.image)
        np.testing.assert_array_equal(view.reference, expected.reference)
        assert (view.row_mm, view.column_mm) == (expected.row_mm, expected.column_mm)
        assert (view.left, view.top) == (expected.left, expected.top)


def test_planes_are_hung_with_anterior_and_superior_up():
    """In the frame of ITK (superior, posterior, left) axial planes are shown as stored, others upside down."""
    image, reference, prediction = scene()
    axial, coronal, sagittal = choose_views(image, reference, prediction)
    np.testing.assert_array_equal(axial.image, image.array[0, 1])
    np.testing.assert_array_equal(coronal.image, image.array[0, ::-1, 1])
    np.testing.assert_array_equal(sagittal.image, image.array[0, ::-1, :, 2])
    assert (axial.left, axial.top, sagittal.left, sagittal.top) == ("R", "A", "A", "S")
    assert (coronal.width_mm, coronal.height_mm) == (8.0, 12.0)


def test_slices_are_counted_as_in_the_file():
    """For a file that runs from superior to inferior, slices are counted in that direction."""
    view = choose_views(*(stored(volume, (0, 1, 2), (-1, 1, 1)) for volume in scene()))[0]
    assert view.caption == "axial, slice 3 of 4"
    assert choose_views(*scene())[0].caption == "axial, slice 2 of 4"


def test_oblique_axes_count_as_the_nearest_direction():
    """A tilt of 20 degrees changes nothing."""
    cosine, sine = float(np.cos(np.radians(20))), float(np.sin(np.radians(20)))
    tilted = Geometry(
        shape=SHAPE, spacing_mm=SPACING_MM, direction=((cosine, -sine, 0.0), (sine, cosine, 0.0), (0.0, 0.0, -1.0))
    )
    turn = find_reorientation(tilted)
    assert turn.axes == (0, 1, 2)
    assert turn.reversed == (False, False, True)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_one_plane_gives_one_view(dimensions):
    """A stack of one slice shows that slice; a file of one plane has no directions."""
    (view,) = choose_views(*scene(shape=(1, 6, 8), dimensions=dimensions))
    assert view.image.shape == (6, 8)
    assert (view.left, view.top, view.caption) == (
        ("", "", "") if dimensions == 2 else ("R", "A", "axial, slice 1 of 1")
    )


def test_a_single_voxel_still_gives_a_view():
    """A single voxel is no error."""
    assert len(choose_views(*scene(shape=(1, 1, 1)))) == 1


def test_the_busiest_slice_is_that_of_the_reference_then_of_the_prediction():
    """The middle slice is shown only if both label maps are empty."""
    empty, prediction, reference = (np.zeros((5, 5, 5), dtype=np.uint8) for _ in range(3))
    prediction[4, 0] = 1
    reference[1, 0, :2] = 2
    reference[3, 0, 0] = 1
    assert find_fullest_slice([reference, prediction], 0) == 1
    assert find_fullest_slice([empty, prediction], 0) == 4
    assert find_fullest_slice([empty, empty], 0) == 2


def test_borders_of_zeros_are_cut_off():
    """A skull-stripped head fills the picture, and no label is cropped."""
    image, reference, prediction = scene(shape=(1, 40, 50))
    image.array[:] = 0
    image.array[0, 0, 20:24, 30:33] = 1
    reference.array[:] = 0
    reference.array[0, 10, 30] = 1
    (view,) = choose_views(image, reference, prediction)
    assert view.image.shape == (24 - 10 + 6, 33 - 30 + 6)
    assert view.reference.sum() == 1


def test_very_large_planes_are_thinned_without_changing_their_size():
    """A plane of 6000 columns shows every third or fourth one, over the same width in mm."""
    (view,) = choose_views(*scene(shape=(1, 10, 6000), spacing_mm=(1.0, 1.0, 0.5)))
    assert view.image.shape[1] <= 2000
    assert view.width_mm == pytest.approx(3000, rel=0.01)
    assert view.height_mm == 10
