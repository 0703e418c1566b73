"""Resampled label maps equal those of interpolating every label everywhere."""

import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linear_interpolation import interpolate
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.imaging.geometry import Shape, Vector
from autoseg.preprocessing import label_resampling
from autoseg.preprocessing.label_resampling import resample_labels
from autoseg.preprocessing.resampling import resampling_matrix

ISOTROPIC: Vector = (1.0, 1.0, 1.0)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))


def make_labels(shape: Shape, seed: int, *, blobs: bool) -> NDArray[np.int8]:
    """Labels from -1 to 3: noise, or blobs."""
    random = np.random.default_rng(seed)
    if not blobs:
        return random.integers(-1, 4, shape).astype(np.int8)
    field = ndimage.gaussian_filter(random.normal(size=shape), 1.5)
    return np.clip(np.round(field * 20), -1, 3).astype(np.int8)


def assert_same_winners(
    result: NDArray[np.integer], expected: NDArray[np.integer], labels: NDArray[np.integer]
) -> None:
    """Equal voxel by voxel; only where two labels have the same share, to the last bit of rounding, may they differ."""
    for place in map(tuple, np.argwhere(result != expected)):
        shares = [
            interpolate((labels == value[place]).astype(np.float64), result.shape) for value in (result, expected)
        ]
        assert abs(shares[0][place] - shares[1][place]) < 1e-12
    assert np.mean(result != expected) < 0.05


@settings(max_examples=60, deadline=None)
@given(old=shapes, new=shapes, seed=st.integers(0, 999), blobs=st.booleans())
@example(old=(8, 5, 7), new=(12, 3, 3), seed=0, blobs=False)  # holds a draw that rounding decides
def test_labels_equal_batchgenerators(old: Shape, new: Shape, seed: int, blobs: bool) -> None:
    """Every voxel, but for draws that rounding decides, for any labels and shapes."""
    labels = make_labels(old, seed, blobs=blobs)
    result = resample_labels(labels, ISOTROPIC, new, ISOTROPIC)
    assert result.dtype == labels.dtype
    assert_same_winners(result, resize_segmentation(labels, new, order=1), labels)


@settings(max_examples=15, deadline=None)
@given(old=shapes, factor=st.integers(2, 4), seed=st.integers(0, 99))
def test_labels_equal_batchgenerators_where_draws_are_many(old: Shape, factor: int, seed: int) -> None:
    """Halving by an even number puts every voxel between others."""
    larger: Shape = tuple(size * factor for size in old)  # type: ignore[assignment]
    labels = make_labels(larger, seed, blobs=False)
    result = resample_labels(labels, ISOTROPIC, old, ISOTROPIC)
    assert_same_winners(result, resize_segmentation(labels, old, order=1), labels)


@settings(max_examples=30, deadline=None)
@given(old=shapes, new=shapes, axis=st.integers(0, 2), seed=st.integers(0, 99), blobs=st.booleans())
def test_anisotropic_labels_equal_batchgenerators_slice_by_slice(
    old: Shape, new: Shape, axis: int, seed: int, blobs: bool
) -> None:
    """In-plane it is batchgenerators, across planes the nearest slice."""
    coarse: Vector = tuple(5.0 if other == axis else 1.0 for other in range(3))  # type: ignore[assignment]
    labels = make_labels(old, seed, blobs=blobs)
    in_plane = tuple(size for other, size in enumerate(new) if other != axis)
    slices = np.stack([resize_segmentation(one, in_plane, order=1) for one in np.moveaxis(labels, axis, 0)])
    nearest = resampling_matrix(old[axis], new[axis], 0).argmax(axis=1)
    expected = np.moveaxis(slices[nearest], 0, axis)
    np.testing.assert_array_equal(resample_labels(labels, coarse, new, ISOTROPIC), expected)


def test_memory_is_bounded_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at few voxels at once changes nothing."""
    labels = make_labels((9, 8, 7), 5, blobs=True)
    whole = resample_labels(labels, ISOTROPIC, (13, 12, 11), ISOTROPIC)
    monkeypatch.setattr(label_resampling, "VOXELS_AT_ONCE", 1)
    monkeypatch.setattr(label_resampling, "MIXED_AT_ONCE", 3)
    np.testing.assert_array_equal(resample_labels(labels, ISOTROPIC, (13, 12, 11), ISOTROPIC), whole)


def test_axes_in_any_order_in_memory_give_the_same() -> None:
    """A permuted view is resampled like a copy of it."""
    labels = make_labels((9, 8, 7), 6, blobs=True)
    view = np.asfortranarray(labels)
    expected = resample_labels(labels, ISOTROPIC, (13, 12, 5), ISOTROPIC)
    np.testing.assert_array_equal(resample_labels(view, ISOTROPIC, (13, 12, 5), ISOTROPIC), expected)


def test_equal_shapes_are_not_resampled() -> None:
    """The label map itself comes back."""
    labels = make_labels((3, 4, 5), 0, blobs=False)
    assert resample_labels(labels, ISOTROPIC, (3, 4, 5), (2.0, 1.0, 1.0)) is labels
