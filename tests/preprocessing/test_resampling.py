"""Resampled images equal those of the general routines of scipy and skimage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize

from autoseg.imaging.geometry import Shape, Vector
from autoseg.preprocessing.resampling import IMAGE_ORDER, Order, resample_image, resampling_matrix, separate_axis

ISOTROPIC: Vector = (1.0, 1.0, 1.0)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))


def make_volume(shape: Shape, seed: int, *, smooth: bool) -> NDArray[np.float32]:
    """Noise, or a smooth random field."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return (ndimage.gaussian_filter(noise, 1.5) if smooth else noise).astype(np.float32)


def resize_slices(volume: NDArray[np.float32], shape: Shape, axis: int) -> NDArray[np.float32]:
    """The reference's way: each slice by skimage, then the nearest slice by half-pixel coordinates."""
    in_plane = tuple(size for other, size in enumerate(shape) if other != axis)
    slices = [
        resize(one, in_plane, IMAGE_ORDER, mode="edge", anti_aliasing=False, clip=True)
        for one in np.moveaxis(volume, axis, 0)
    ]
    stack = np.stack(slices)
    scale = stack.shape[0] / shape[axis]
    coordinates = np.mgrid[tuple(slice(0, size) for size in (shape[axis], *in_plane))].astype(float)
    coordinates[0] = scale * (coordinates[0] + 0.5) - 0.5
    return np.moveaxis(ndimage.map_coordinates(stack, coordinates, order=0, mode="nearest"), 0, axis)


@settings(max_examples=40, deadline=None)
@given(old=st.integers(1, 40), new=st.integers(1, 60), order=st.sampled_from([0, 1, 3]))
def test_rows_of_the_matrix_sum_to_one(old: int, new: int, order: Order) -> None:
    """A constant line stays constant, whatever its length."""
    matrix = resampling_matrix(old, new, order)
    assert matrix.shape == (new, old)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(old=st.integers(1, 60), new=st.integers(1, 90))
def test_order_0_takes_the_nearest_voxel_by_half_pixel_centres(old: int, new: int) -> None:
    """The matrix agrees with map_coordinates at the centres of the new voxels."""
    centres = old / new * (np.arange(new) + 0.5) - 0.5
    expected = ndimage.map_coordinates(np.arange(old), [centres], order=0, mode="nearest")
    np.testing.assert_array_equal(resampling_matrix(old, new, 0) @ np.arange(old), expected)


def test_the_matrix_of_the_docstring() -> None:
    """Halving a line averages pairs; doubling it by order 0 repeats voxels."""
    np.testing.assert_allclose(resampling_matrix(4, 2, 1), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(resampling_matrix(2, 4, 0), [[1, 0], [1, 0], [0, 1], [0, 1]])


@settings(max_examples=40, deadline=None)
@given(old=shapes, new=shapes, seed=st.integers(0, 99), smooth=st.booleans())
def test_cubic_resampling_equals_skimage(old: Shape, new: Shape, seed: int, smooth: bool) -> None:
    """Any shapes, growing and shrinking, with the clip to the range of each channel."""
    image = np.stack([make_volume(old, seed, smooth=smooth), 100 * make_volume(old, seed + 1, smooth=smooth)])
    result = resample_image(image, ISOTROPIC, new, ISOTROPIC)
    assert result.dtype == np.float32
    for channel, resampled in zip(image, result, strict=True):
        expected = resize(channel, new, IMAGE_ORDER, mode="edge", anti_aliasing=False, clip=True)
        np.testing.assert_allclose(resampled, expected, atol=1e-6 * max(1, float(np.abs(channel).max())) * 10)


@settings(max_examples=30, deadline=None)
@given(old=shapes, new=shapes, seed=st.integers(0, 99))
def test_linear_resampling_equals_skimage(old: Shape, new: Shape, seed: int) -> None:
    """Order 1, by which logits are resampled, agrees too; slices that are kept apart are copied."""
    volume = make_volume(old, seed, smooth=False)
    result = resample_image(volume[np.newaxis], ISOTROPIC, new, ISOTROPIC, order=1)[0]
    np.testing.assert_allclose(result, resize(volume, new, 1, mode="edge", anti_aliasing=False), atol=1e-5)
    apart = resample_image(volume[np.newaxis], (5.0, 1.0, 1.0), (2 * old[0], *new[1:]), ISOTROPIC, order=1)[0]
    slices = [resize(one, new[1:], 1, mode="edge", anti_aliasing=False) for one in volume]
    np.testing.assert_allclose(apart, np.repeat(slices, 2, axis=0), atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(old=st.integers(60, 300), new=st.integers(60, 300), axis=st.integers(0, 2), seed=st.integers(0, 99))
def test_long_lines_lose_nothing_to_what_is_left_out(old: int, new: int, axis: int, seed: int) -> None:
    """Where each new voxel is computed from a part of its line only, in several bands."""
    volume = make_volume(tuple(old if other == axis else 2 for other in range(3)), seed, smooth=False)
    shape: Shape = tuple(new if other == axis else 3 for other in range(3))  # type: ignore[assignment]
    expected = resize(volume, shape, IMAGE_ORDER, mode="edge", anti_aliasing=False, clip=True)
    result = resample_image(volume[np.newaxis], ISOTROPIC, shape, ISOTROPIC)[0]
    np.testing.assert_allclose(result, expected, atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(old=shapes, new=shapes, axis=st.integers(0, 2), seed=st.integers(0, 99))
def test_anisotropic_resampling_equals_the_reference_slice_by_slice(
    old: Shape, new: Shape, axis: int, seed: int
) -> None:
    """In-plane it is skimage with the clip of each slice, across planes the nearest slice."""
    coarse: Vector = tuple(5.0 if other == axis else 1.0 for other in range(3))  # type: ignore[assignment]
    volume = make_volume(old, seed, smooth=False)
    result = resample_image(volume[np.newaxis], coarse, new, ISOTROPIC)[0]
    np.testing.assert_allclose(result, resize_slices(volume, new, axis), atol=1e-5)


def test_the_range_of_each_slice_is_kept() -> None:
    """An edge does not overshoot the range of its own slice when slices are kept apart."""
    image = np.zeros((1, 2, 6, 6), dtype=np.float32)
    image[0, :, :, 3:] = [[[1]], [[1000]]]
    result = resample_image(image, (9.0, 1.0, 1.0), (2, 9, 13), (9.0, 0.6, 0.5))
    assert (result[0, 0].min(), result[0, 0].max()) == (0, 1)
    assert (result[0, 1].min(), result[0, 1].max()) == (0, 1000)


def test_equal_shapes_are_not_resampled() -> None:
    """The image itself comes back."""
    image = make_volume((3, 4, 5), 0, smooth=False)[np.newaxis]
    assert resample_image(image, ISOTROPIC, (3, 4, 5), (2.0, 2.0, 2.0)) is image


@pytest.mark.parametrize(
    ("spacing_mm", "target_mm", "axis"),
    [
        ((3.6, 0.6, 0.6), (3.6, 0.6, 0.6), 0),
        ((1.0, 1.0, 1.0), (3.6, 0.6, 0.6), 0),
        ((0.24, 1.25, 1.25), (1.0, 1.0, 1.0), None),
        ((1.0, 1.0, 3.0), (1.0, 1.0, 1.0), None),
        ((1.0, 1.0, 3.1), (1.0, 1.0, 1.0), 2),
        ((0.2, 0.7, 0.5), (5.0, 0.7, 0.5), 1),
        ((1.0, 1.0, 1.0), (1.0, 4.0, 4.0), None),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),
    ],
)
def test_which_axis_keeps_slices_apart(spacing_mm: Vector, target_mm: Vector, axis: int | None) -> None:
    """The image decides before the target, the threshold itself does not count, and a tie means none."""
    assert separate_axis(spacing_mm, target_mm) == axis
