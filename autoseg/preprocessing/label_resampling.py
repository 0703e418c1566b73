"""Resampling of label maps by linear interpolation; for logits see `output_choice`.

Linear interpolation keeps the label wherever all corners of a cell agree. So every new voxel takes the label of its
nearest old voxel, and only those in cells of several labels are interpolated. The result is the same as if every class
were interpolated everywhere, but no array of classes x new voxels is ever made. With 24 classes, from 100 x 256 x 256
to 150 x 400 x 400 voxels, it takes an eighth of the time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape, Vector
from autoseg.preprocessing.linear_axes import Axes, mark_mixed_cells, prepare_axes, take_grid
from autoseg.preprocessing.resampling import separate_axis

# Decision: both bound the memory to some MB, and keep the voxels at work in the cache of a core.
VOXELS_AT_ONCE = 2**20  # Number of new voxels that are searched for mixed cells together
MIXED_AT_ONCE = 2**16  # Number of new voxels in mixed cells whose corners are gathered together

Labels = TypeVar("Labels", bound=NDArray[np.integer])
"""A label map in any encoding, see `label_encoding`; resampling keeps the encoding."""

_VoxelIndices = NDArray[np.intp]  # into the flattened new volume


@dataclass(frozen=True, slots=True)
class _Corners:
    """The eight old voxels at the corners of the cell around each of n new voxels.

    Attributes:
        index: Shape (8, n): indices into the flattened old volume.
        weights: Shape (8, n), float64: the share of each corner in the new voxel; they sum to 1.
    """

    index: NDArray[np.intp]
    weights: NDArray[np.float64]


def resample_labels(labels: Labels, spacing_mm: Vector, shape: Shape, target_spacing_mm: Vector) -> Labels:
    """Resamples a label map: each voxel gets the label with the largest share by linear interpolation.

    If several labels share the largest share, the label of the nearest voxel wins if it is one of them, else the
    smallest. Source: the reference method with batchgenerators 0.25.5; shares are summed in the order of scipy, so the
    label maps are equal to the last voxel. Along an axis that keeps slices apart the nearest slice is taken.

    Args:
        labels: Shape (z, y, x); any integers, such as -1 for outside.
        spacing_mm: Spacing of the label map, (z, y, x).
        shape: Shape of the result, (z, y, x).
        target_spacing_mm: Spacing of the result; with `spacing_mm` it decides whether slices are kept apart.

    Returns:
        A label map of this shape, in the integer type of `labels`; `labels` itself if it has the shape already.

    Example:
        >>> labels = np.array([[[0, 0, 1, 1]]])
        >>> resample_labels(labels, (1.0, 1.0, 1.0), (1, 1, 8), (1.0, 1.0, 0.5)).tolist()
        [[[0, 0, 0, 0, 1, 1, 1, 1]]]
    """
    if labels.shape == shape:
        return labels
    contiguous = np.ascontiguousarray(labels)  # else each function below would copy it
    axes = prepare_axes(labels.shape, shape, separate_axis(spacing_mm, target_spacing_mm))
    result = take_grid(contiguous, [axis.nearest for axis in axes])
    voxels = result.reshape(-1)
    for indices in _find_mixed(contiguous, axes):
        corners = _find_corners(contiguous.shape, axes, indices)
        voxels[indices] = _choose_label(contiguous.take(corners.index), corners.weights, nearest=voxels[indices])
    return cast(Labels, result)


def _find_mixed(labels: NDArray[np.integer], axes: Axes) -> Iterator[_VoxelIndices]:
    """Yields the indices of new voxels in mixed cells, some planes at a time to bound the memory."""
    z, y, x = axes
    plane = len(y.lower) * len(x.lower)
    step = max(1, VOXELS_AT_ONCE // plane)
    for start in range(0, len(z.lower), step):
        planes = slice(start, start + step)
        first, last = z.lower[planes].min(), z.upper[planes].max()
        mixed = mark_mixed_cells(labels[first : last + 1], axes)
        indices = np.flatnonzero(take_grid(mixed, [z.lower[planes] - first, y.lower, x.lower])) + start * plane
        yield from (indices[begin : begin + MIXED_AT_ONCE] for begin in range(0, len(indices), MIXED_AT_ONCE))


def _find_corners(old: tuple[int, ...], axes: Axes, indices: _VoxelIndices) -> _Corners:
    count, (_, height, width) = len(indices), old
    index = np.zeros((2, 2, 2, count), dtype=np.intp)
    weights = np.ones((2, 2, 2, count))
    voxels = np.unravel_index(indices, [len(axis.lower) for axis in axes])
    for number, (axis, voxel, stride) in enumerate(zip(axes, voxels, (height * width, width, 1), strict=True)):
        along = tuple(2 if other == number else 1 for other in range(3))
        index += np.stack([axis.lower[voxel], axis.upper[voxel]]).reshape(*along, count) * stride
        weights *= axis.weights[:, voxel].reshape(*along, count)
    return _Corners(index=index.reshape(8, count), weights=weights.reshape(8, count))


def _choose_label(
    around: NDArray[np.integer], weights: NDArray[np.float64], nearest: NDArray[np.integer]
) -> NDArray[np.integer]:
    """Returns the label with the largest share around each voxel; nearly all voxels have two labels to choose from.

    Args:
        around: Shape (8, n): labels of the corners.
        weights: Shape (8, n): their shares.
        nearest: Shape (n,): labels of the nearest corners, which are taken where shares are equal.
    """
    low, high = around.min(axis=0), around.max(axis=0)
    is_low, is_high = around == low, around == high
    share_of_low, share_of_high = _sum_shares(is_low, weights), _sum_shares(is_high, weights)
    takes_high = (share_of_high > share_of_low) | ((share_of_high == share_of_low) & (nearest == high))
    chosen: NDArray[np.integer] = np.where(takes_high, high, low)
    (several,) = np.nonzero(~(is_low | is_high).all(axis=0))
    chosen[several] = _choose_among_many(around[:, several], weights[:, several], nearest[several])
    return chosen


def _choose_among_many(
    around: NDArray[np.integer], weights: NDArray[np.float64], nearest: NDArray[np.integer]
) -> NDArray[np.integer]:
    shares = np.stack([_sum_shares(around == label, weights) for label in around])
    is_largest = shares == shares.max(axis=0)
    smallest = np.where(is_largest, around, np.iinfo(around.dtype).max).min(axis=0)
    nearest_is_largest = (is_largest & (around == nearest)).any(axis=0)
    chosen: NDArray[np.integer] = np.where(nearest_is_largest, nearest, smallest)
    return chosen


def _sum_shares(has_label: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums in the order of the corners, which decides the last bit and with it some labels of equal shares."""
    total = np.zeros(weights.shape[1])
    for is_label, weight in zip(has_label, weights, strict=True):
        total += np.where(is_label, weight, 0.0)
    return total
