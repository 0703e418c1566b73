"""Sheared grids and their straight ones: voxels lie where the matrix of the sheared image says."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial.transform import Rotation

from autoseg.imaging.affine_geometry import affine_of, grid_of_affine, is_sheared, shear
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.straight_grid import plan_straight_grid, straighten

SHAPE = (5, 7, 6)


def sheared_grid(shears: tuple[float, float, float], angles=(0.0, 0.0, 0.0), sizes=(0.8, 1.1, 4.0)) -> Geometry:
    """Returns a grid (z, y, x): x to y, x to z and y to z are sheared by tangents, then all is scaled and rotated."""
    triangle = np.eye(3)
    triangle[0, 1], triangle[0, 2], triangle[1, 2] = shears
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ triangle * np.array(sizes)
    affine[:3, 3] = (-31, 17, 250)
    return grid_of_affine(affine, SHAPE, name="a")


def positions(geometry: Geometry) -> np.ndarray:
    """Returns the position of each voxel by the matrix of its grid; shape (3, z, y, x), mm."""
    z, y, x = np.meshgrid(*map(np.arange, geometry.shape), indexing="ij")
    affine = affine_of(geometry)
    return np.einsum("ij,jzyx->izyx", affine[:3, :3], np.stack([x, y, z])) + affine[:3, 3].reshape(3, 1, 1, 1)


def is_inside(geometry: Geometry, points: np.ndarray, margin: float) -> np.ndarray:
    """Returns which points lie between the voxel centres of a grid, or beyond by a margin in voxels at most."""
    affine = affine_of(geometry)
    index = np.einsum("ij,j...->i...", np.linalg.inv(affine[:3, :3]), points - affine[:3, 3].reshape(3, 1, 1, 1))
    ends = np.array(geometry.shape[::-1]).reshape(3, 1, 1, 1) - 1
    return ((index >= -margin) & (index <= ends + margin)).all(axis=0)


GRIDS = st.builds(
    sheared_grid,
    st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(0.4, 5)] * 3),
)


@settings(max_examples=60, deadline=None)
@given(geometry=GRIDS)
def test_voxels_keep_their_positions(geometry: Geometry) -> None:
    """Each voxel of an image holds its own position: linear interpolation keeps it, to 1e-4 mm."""
    result = straighten(Volume(array=positions(geometry), geometry=geometry), "image")
    assert shear(np.asarray(result.geometry.direction)) < 1e-9
    assert np.prod(result.geometry.spacing_mm) == pytest.approx(abs(np.linalg.det(affine_of(geometry)[:3, :3])))
    expected = positions(result.geometry)
    inside = is_inside(geometry, expected, 0)
    assert np.abs(result.array - expected)[:, inside].max(initial=0) < 1e-4
    outside = ~is_inside(geometry, expected, 0.51)
    lowest = positions(geometry).reshape(3, -1).min(axis=1).reshape(3, 1)
    assert (result.array[:, outside] == lowest).all()


@settings(max_examples=40, deadline=None)
@given(geometry=GRIDS, seed=st.integers(0, 99))
def test_voxels_are_those_of_another_interpolation(geometry: Geometry, seed: int) -> None:
    """Noise, interpolated by brute force at the position of each voxel; labels are those of the nearest voxel."""
    noise = np.random.default_rng(seed).normal(size=(1, *SHAPE))
    result = straighten(Volume(array=noise, geometry=geometry), "image")
    points = positions(result.geometry)
    affine = affine_of(geometry)
    index = np.linalg.solve(affine[:3, :3], (points - affine[:3, 3].reshape(3, 1, 1, 1)).reshape(3, -1))[::-1].T
    axes = [np.arange(size) for size in SHAPE]
    linear = RegularGridInterpolator(axes, noise[0], bounds_error=False, fill_value=np.nan)(index)
    inside = is_inside(geometry, points, -1e-6).ravel()
    assert np.abs(result.array.ravel() - linear)[inside].max(initial=0) < 1e-6
    labels = np.arange(1, np.prod(SHAPE) + 1, dtype=np.int32).reshape(1, *SHAPE)
    nearest = RegularGridInterpolator(axes, labels[0], method="nearest", bounds_error=False, fill_value=0)(index)
    between = np.abs(index % 1 - 0.5).min(axis=1) > 1e-6  # not as near to another voxel
    straight = straighten(Volume(array=labels, geometry=geometry), "labels").array
    assert straight.dtype == np.int32
    assert np.array_equal(straight.ravel()[inside & between], nearest[inside & between])


def test_a_gantry_tilt_only_moves_rows() -> None:
    """The slices stay in their planes, and the distance between them is that across them."""
    geometry = sheared_grid((0, 0, np.tan(np.radians(15))), sizes=(0.5, 0.5, 4))
    grid = plan_straight_grid(geometry)
    assert np.allclose(grid.geometry.spacing_mm, (4, 0.5, 0.5))
    assert geometry.spacing_mm[0] == pytest.approx(4 / np.cos(np.radians(15)))
    assert grid.geometry.shape == (5, 7 + int(np.ceil(4 * 4 * np.tan(np.radians(15)) / 0.5)), 6)
    assert np.allclose(grid.matrix[[0, 2]], [[1, 0, 0], [0, 0, 1]])
    old, new = positions(geometry), positions(grid.geometry)
    assert np.allclose(old[2, :, 0, 0], new[2, :, 0, 0])
    assert np.allclose(old[0, 0, 0], new[0, 0, 0])


@pytest.mark.parametrize(
    ("sizes", "axis"), [((0.5, 0.5, 4), 0), ((0.5, 4, 0.5), 1), ((4, 0.5, 0.5), 2), ((1, 1, 1), 0)]
)
def test_slices_are_kept_whatever_their_axis(sizes: tuple[float, float, float], axis: int) -> None:
    """Along the coarse axis each new slice is an old one, and without one along the first axis of the array."""
    grid = plan_straight_grid(sheared_grid((0.1, 0.2, 0.3), sizes=sizes))
    assert grid.geometry.shape[axis] == SHAPE[axis]
    assert np.allclose(grid.matrix[axis], np.eye(3)[axis])


def test_whole_numbers_stay_whole_and_outside_is_air() -> None:
    """As in CT; all label values stay, and none is added."""
    geometry = sheared_grid((0, 0, 0.3))
    hounsfield = np.random.default_rng(0).integers(-1000, 2000, size=(1, *SHAPE)).astype(np.int16)
    result = straighten(Volume(array=hounsfield, geometry=geometry), "image").array
    assert result.dtype == np.int16
    assert result[0, 0, -1, 0] == hounsfield.min()
    labels = np.random.default_rng(0).choice([0, 7, 300], size=(1, *SHAPE)).astype(np.uint16)
    straight = straighten(Volume(array=labels, geometry=geometry), "labels").array
    assert set(np.unique(straight)) == {0, 7, 300}


def test_image_and_mask_get_one_grid_though_their_headers_are_rounded() -> None:
    """The tilt moves the last slice by a whole number of voxels, which rounding makes a little more or less."""
    for rounding in (-1e-7, 0, 1e-7):
        grid = plan_straight_grid(sheared_grid((0, 0, 0.25 + rounding), sizes=(1, 1, 4)))
        assert grid.geometry.shape == (5, 11, 6)


@pytest.mark.parametrize(("tangent", "refused"), [(0.0, False), (9e-4, False), (1.1e-3, True), (0.3, True)])
def test_one_tolerance(tangent: float, refused: bool) -> None:
    """A cosine of 0.001, 0.06 degrees, between any two axes."""
    for place in product((0, 1), repeat=3):
        if sum(place) == 1:
            assert is_sheared(sheared_grid(tuple(tangent * chosen for chosen in place))) == refused
