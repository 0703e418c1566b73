"""Grids in space: whatever is done to a grid, its points keep their position."""

import math
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from autoseg.imaging.geometry import Box, Geometry, Shape, Vector, Volume, direction_of
from autoseg.imaging.orientation import is_orientation

AXIS_ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
axis_orders = st.sampled_from(AXIS_ORDERS)


def position(geometry: Geometry, index: NDArray[Any] | tuple[float, ...]) -> NDArray[np.float64]:
    """Where a voxel is, by the formula of the module's text."""
    offset = np.asarray(geometry.direction) @ (np.asarray(index, dtype=float) * geometry.spacing_mm)
    return np.asarray(geometry.origin_mm) + offset


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Grids of any shape, spacing, place and direction, mirrored ones too."""
    rotation = Rotation.from_euler("xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True).as_matrix()
    rotation[:, 0] *= draw(st.sampled_from([-1, 1]))
    return Geometry(
        shape=tuple(draw(st.integers(1, 50)) for _ in range(3)),
        spacing_mm=tuple(draw(st.floats(0.1, 10)) for _ in range(3)),
        origin_mm=tuple(draw(st.floats(-500, 500)) for _ in range(3)),
        direction=tuple(tuple(map(float, row)) for row in rotation),
    )


@settings(max_examples=40, deadline=None)
@given(geometry=geometries(), data=st.data())
def test_cropping_keeps_points_in_space(geometry: Geometry, data: st.DataObject) -> None:
    """Voxel i of the crop is voxel start + i of the whole."""
    start = tuple(data.draw(st.integers(0, size - 1)) for size in geometry.shape)
    stop = tuple(data.draw(st.integers(first + 1, size)) for first, size in zip(start, geometry.shape, strict=True))
    box = Box(start=start, stop=stop)
    cropped = geometry.crop(box)
    assert cropped.shape == box.shape
    last = np.asarray(cropped.shape) - 1
    np.testing.assert_allclose(position(cropped, (0, 0, 0)), position(geometry, start), atol=1e-9)
    np.testing.assert_allclose(position(cropped, last), position(geometry, np.asarray(start) + last), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(geometry=geometries(), axes=axis_orders, data=st.data())
def test_permuting_keeps_points_in_space(geometry: Geometry, axes: tuple[int, int, int], data: st.DataObject) -> None:
    """Only the order of the axes changes, and the inverse order brings them back exactly."""
    index = np.array([data.draw(st.integers(0, size - 1)) for size in geometry.shape])
    permuted = geometry.permute(axes)
    np.testing.assert_allclose(position(permuted, index[list(axes)]), position(geometry, index), atol=1e-9)
    assert permuted.shape == tuple(geometry.shape[axis] for axis in axes)
    assert permuted.permute(tuple(np.argsort(axes))) == geometry


@settings(max_examples=40, deadline=None)
@given(geometry=geometries(), shape=st.tuples(*[st.integers(1, 50)] * 3))
def test_resampling_keeps_the_borders_in_space(geometry: Geometry, shape: Shape) -> None:
    """The outer faces of the first and of the last voxel stay, and so does the centre."""
    resampled = geometry.resample(shape)
    assert resampled.shape == shape
    halves = np.array([0.5, 0.5, 0.5])
    np.testing.assert_allclose(position(resampled, -halves), position(geometry, -halves), atol=1e-8)
    np.testing.assert_allclose(
        position(resampled, np.asarray(shape) - halves),
        position(geometry, np.asarray(geometry.shape) - halves),
        atol=1e-8,
    )
    np.testing.assert_allclose(
        position(resampled, (np.asarray(shape) - 1) / 2),
        position(geometry, (np.asarray(geometry.shape) - 1) / 2),
        atol=1e-8,
    )


def test_four_voxels_of_1_mm_become_two_of_2_mm() -> None:
    """A worked example: centres at 0, 1, 2, 3 mm become centres at 0.5 and 2.5 mm."""
    line = Geometry(shape=(1, 1, 4), spacing_mm=(1.0, 1.0, 1.0)).resample((1, 1, 2))
    assert line.spacing_mm == (1.0, 1.0, 2.0)
    assert [position(line, (0, 0, index))[2] for index in range(2)] == [0.5, 2.5]


@settings(max_examples=30, deadline=None)
@given(axes=axis_orders, channels=st.integers(0, 2), data=st.data())
def test_a_volume_takes_its_voxels_along(axes: tuple[int, int, int], channels: int, data: st.DataObject) -> None:
    """A voxel that holds its own position holds it still after permuting and cropping."""
    geometry = data.draw(geometries().filter(lambda one: np.prod(one.shape) < 5000))
    indices = np.indices(geometry.shape).reshape(3, -1)
    places = np.stack([position(geometry, index) for index in indices.T], axis=1).reshape(3, *geometry.shape)
    array = np.stack([places[0]] * channels) if channels else places[0]
    stop = tuple(data.draw(st.integers(1, geometry.shape[axis])) for axis in axes)
    start = tuple(data.draw(st.integers(0, end - 1)) for end in stop)
    moved = Volume(array=array, geometry=geometry).permute(axes).crop(Box(start=start, stop=stop))
    index = tuple(data.draw(st.integers(0, size - 1)) for size in moved.geometry.shape)
    expected = position(moved.geometry, index)[0]
    np.testing.assert_allclose(moved.array[(..., *index)], expected, atol=1e-8)


@pytest.mark.parametrize("shape", [(3, 4, 6), (3, 4), (1, 1, 3, 4, 5), (3, 4, 5, 1)])
def test_an_array_off_its_grid_is_refused(shape: tuple[int, ...]) -> None:
    """The last three axes of the array are the grid's."""
    with pytest.raises(ValueError, match=r"does not lie on a grid"):
        Volume(array=np.zeros(shape), geometry=Geometry(shape=(3, 4, 5), spacing_mm=(1.0, 1.0, 1.0)))


def test_a_box_counts_its_start_but_not_its_stop() -> None:
    """Half-open, like slices."""
    box = Box(start=(0, 2, 3), stop=(1, 5, 10))
    assert box.shape == (1, 3, 7)
    assert np.zeros((4, 9, 12))[box.slices].shape == box.shape


@settings(max_examples=30, deadline=None)
@given(geometry=geometries(), seed=st.integers(0, 99))
def test_rounding_in_headers_is_no_difference(geometry: Geometry, seed: int) -> None:
    """Tools write 32-bit floats, and some round to four digits."""
    random = np.random.default_rng(seed)
    tolerated = replace(
        geometry,
        spacing_mm=tuple(value * (1 + 9e-4 * random.uniform(-1, 1)) for value in geometry.spacing_mm),
        origin_mm=tuple(
            value + 0.09 * min(geometry.spacing_mm) * random.uniform(-1, 1) for value in geometry.origin_mm
        ),
        direction=tuple(tuple(cosine + 9e-4 * random.uniform(-1, 1) for cosine in row) for row in geometry.direction),
    )
    assert geometry.difference(tolerated) is None
    assert geometry.difference(geometry) is None


FLIPPED = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
TURNED = ((1.0, 0.0, 0.0), (0.0, np.cos(0.05), -np.sin(0.05)), (0.0, np.sin(0.05), np.cos(0.05)))
SHIFTED: Vector = (0.0, 0.0, 0.2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shape": (3, 4, 6)}, "shape 5 x 4 x 3 differs from 6 x 4 x 3 voxels (x, y, z)"),
        ({"spacing_mm": (1.0, 1.0, 1.01)}, "spacing 1 x 1 x 1 differs from 1.01 x 1 x 1 mm (x, y, z)"),
        (
            {"origin_mm": SHIFTED},
            "first voxel at (0, 0, 0) mm (right, anterior, superior), not (-0.2, 0, 0) mm (right, anterior, superior)",
        ),
        ({"direction": FLIPPED}, "direction of the axes differs"),
        ({"direction": TURNED}, "direction of the axes differs"),
    ],
)
def test_real_differences_are_stated(change: dict[str, Any], text: str) -> None:
    """One clear phrase about the first difference, with both values."""
    geometry = Geometry(shape=(3, 4, 5), spacing_mm=(1.0, 1.0, 1.0))
    assert geometry.difference(replace(geometry, **change)) == text


ORIENTATIONS = ["".join(ways) for axes in permutations(("SI", "PA", "LR")) for ways in product(*axes)]


@settings(max_examples=60, deadline=None)
@given(geometry=geometries(), orientation=st.sampled_from(ORIENTATIONS), channels=st.integers(0, 2))
def test_turning_there_and_back_changes_nothing(geometry: Geometry, orientation: str, channels: int) -> None:
    """However it is turned, the axes lead as was asked, and the way back gives every voxel and place again."""
    small = replace(geometry, shape=tuple(1 + size % 6 for size in geometry.shape))
    array = np.arange(np.prod(small.shape)).reshape(small.shape)
    volume = Volume(array=np.stack([array] * channels) if channels else array, geometry=small)
    turned = volume.reoriented(orientation)
    assert turned.geometry.orientation == orientation
    back = turned.reoriented(small.orientation)
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry.difference(small) is None
    np.testing.assert_allclose(back.geometry.origin_mm, small.origin_mm, atol=1e-9)
    np.testing.assert_allclose(back.geometry.direction, small.direction, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(geometry=geometries(), orientation=st.sampled_from(ORIENTATIONS), data=st.data())
def test_turning_keeps_points_in_space(geometry: Geometry, orientation: str, data: st.DataObject) -> None:
    """A voxel is where it was, under another index."""
    small = replace(geometry, shape=tuple(1 + size % 6 for size in geometry.shape))
    numbers = np.arange(np.prod(small.shape)).reshape(small.shape)
    turned = Volume(array=numbers, geometry=small).reoriented(orientation)
    index = tuple(data.draw(st.integers(0, size - 1)) for size in turned.geometry.shape)
    [before] = np.argwhere(numbers == turned.array[index])
    np.testing.assert_allclose(position(turned.geometry, index), position(small, before), atol=1e-8)


def test_turning_by_hand() -> None:
    """From SPL to RSA: the last axis comes first and runs backwards, and the second comes last, also backwards."""
    geometry = Geometry(shape=(2, 3, 4), spacing_mm=(3.0, 2.0, 1.0), origin_mm=(0.0, 0.0, 0.0))
    assert geometry.orientation == "SPL"
    turn = geometry.reorientation_to("RSA")
    assert (turn.axes, turn.reversed) == ((2, 0, 1), (True, False, True))
    turned = geometry.reoriented("RSA")
    assert (turned.shape, turned.spacing_mm, turned.origin_mm) == ((4, 2, 3), (1.0, 3.0, 2.0), (0.0, 4.0, 3.0))
    array = np.arange(24).reshape(2, 3, 4)
    assert turn.apply(array)[0, 1, 0] == array[1, 2, 3]
    assert np.shares_memory(turn.apply(array), array)


def test_straight_grids_lead_where_they_are_told() -> None:
    """Each of the 48 orientations has a direction; other texts, and planes, have none."""
    assert len(ORIENTATIONS) == 48
    for orientation in ORIENTATIONS:
        assert is_orientation(orientation)
        grid = Geometry(shape=(1, 1, 1), spacing_mm=(1.0, 1.0, 1.0), direction=direction_of(orientation))
        assert grid.orientation == orientation
    for text in ("SPP", "SP", "SPX", "SIL", "", "spl"):
        assert not is_orientation(text)
        with pytest.raises(ValueError, match="is no orientation"):
            direction_of(text)
        with pytest.raises(ValueError, match="cannot be turned"):
            Geometry(shape=(1, 1, 1), spacing_mm=(1.0, 1.0, 1.0)).reorientation_to(text)
    with pytest.raises(ValueError, match="axes that lead None cannot be turned"):
        Geometry(shape=(1, 2, 2), spacing_mm=(1.0, 1.0, 1.0), dimensions=2).reorientation_to("SPL")


def test_a_voxel_has_a_volume_and_a_pixel_of_a_plane_an_area():
    """A plane's through-plane spacing is made up, so it has no volume."""
    volume = Geometry(shape=(2, 2, 2), spacing_mm=(4.0, 3.0, 0.5))
    plane = Geometry(shape=(1, 2, 2), spacing_mm=(4.0, 3.0, 0.5), dimensions=2)
    assert (volume.voxel_size, volume.voxel_volume_mm3) == (6.0, 6.0)
    assert plane.voxel_size == 1.5
    assert math.isnan(plane.voxel_volume_mm3)
