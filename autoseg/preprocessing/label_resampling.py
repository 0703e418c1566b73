"""Resampling of label maps, and of logits to label maps, by linear interpolation.

Linear interpolation keeps the label wherever all corners of a cell agree. So every new voxel takes the label of its
nearest old voxel, and only those in cells of several labels are interpolated. The result is the same as if every class
were interpolated everywhere, but no array of classes x new voxels is ever made. With 24 classes, from 100 x 256 x 256
to 150 x 400 x 400 voxels, it takes an eighth of the time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape, Vector
from autoseg.preprocessing.resampling import Order, resampling_matrix, separate_axis
from autoseg.runtime.machine import count_cores
from autoseg.runtime.thread_pool import ThreadPool

# Decision: both bound the memory to some MB, and keep the voxels at work in the cache of a core.
VOXELS_AT_ONCE = 2**20  # Number of new voxels that are searched for mixed cells together
MIXED_AT_ONCE = 2**16  # Number of new voxels in mixed cells whose corners are gathered together
CHOSEN_AT_ONCE = 2**14  # Number of new voxels in mixed cells for which an output is chosen together
MOST_THREADS = 8  # Decision: with more threads, the memory is the limit


@dataclass(frozen=True, slots=True)
class _Axis:
    """Linear interpolation along one axis: each new voxel lies between two old ones.

    Attributes:
        lower, upper: Index of the old voxel on either side of each new one; equal at a border.
        weights: Shape (2, new): the weights of `lower` and of `upper`, which sum to 1.
        nearest: Index of the nearest old voxel.
    """

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weights: NDArray[np.float64]
    nearest: NDArray[np.intp]


Labels = TypeVar("Labels", bound=NDArray[np.integer])
"""A label map in any encoding, see `label_encoding`; resampling keeps the encoding."""

ChooseOutput = Callable[[Iterable[NDArray[np.floating]]], NDArray[np.int16]]
"""Function from the logits of each output, of any shape, to the number of the chosen output at each voxel."""

_Axes = tuple[_Axis, _Axis, _Axis]
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
    axes = _prepare_axes(labels.shape, shape, separate_axis(spacing_mm, target_spacing_mm))
    result = _take_grid(contiguous, [axis.nearest for axis in axes])
    voxels = result.reshape(-1)
    for indices in _find_mixed(contiguous, axes):
        corners = _find_corners(contiguous.shape, axes, indices)
        voxels[indices] = _choose_label(contiguous.take(corners.index), corners.weights, nearest=voxels[indices])
    return cast(Labels, result)


def resample_and_choose(
    logits: NDArray[np.floating], choose: ChooseOutput, spacing_mm: Vector, shape: Shape, target_spacing_mm: Vector
) -> NDArray[np.uint8] | NDArray[np.int16]:
    """Interpolates all logits linearly and chooses an output at each voxel, without ever holding outputs x new voxels.

    Along an axis that keeps slices apart the nearest slice is taken.

    Args:
        logits: Shape (outputs, z, y, x), of 16 or 32 bit.
        choose: `choose_class` for classes, `choose_region` for regions.
        spacing_mm: Spacing of the logits, (z, y, x).
        shape: Shape of the result, (z, y, x).
        target_spacing_mm: Spacing of the result; with `spacing_mm` it decides whether slices are kept apart.

    Returns:
        The chosen numbers, in this shape: uint8, or int16 if there are more than 255 outputs.

    Example:
        >>> logits = np.array([[[[1.0, 1.0]]], [[[0.0, 4.0]]]], dtype=np.float32)
        >>> resample_and_choose(logits, choose_class, (1.0, 1.0, 1.0), (1, 1, 4), (1.0, 1.0, 0.5)).tolist()
        [[[0, 0, 1, 1]]]
    """
    dtype = np.uint8 if len(logits) <= 255 else np.int16
    chosen: NDArray[np.uint8] | NDArray[np.int16] = np.empty(logits.shape[1:], dtype=dtype)

    def choose_old_plane(number: int) -> None:
        chosen[number] = choose(logits[:, number])

    _call_in_threads(choose_old_plane, len(chosen))
    if chosen.shape == shape:
        return chosen
    axes = _prepare_axes(chosen.shape, shape, separate_axis(spacing_mm, target_spacing_mm))
    result = _take_grid(chosen, [axis.nearest for axis in axes])
    mixed_cells = _mark_mixed_cells(chosen, axes)

    def choose_new_plane(number: int) -> None:
        plane = _NewPlane.of(logits, mixed_cells, axes, number)
        for voxels, values in plane.interpolate_mixed():
            result[number].reshape(-1)[voxels] = choose(values)

    _call_in_threads(choose_new_plane, len(result))
    return result


def choose_class(logits: Iterable[NDArray[np.floating]]) -> NDArray[np.int16]:
    """Returns the argmax of the logits, by a running maximum; the lowest class where several are equal.

    Example:
        >>> choose_class(np.array([[0.5, 0.0], [0.5, 1.0], [0.0, 2.0]])).tolist()
        [0, 2]
    """
    classes = iter(logits)
    best = np.array(next(classes), dtype=np.float32)
    chosen = np.zeros(best.shape, dtype=np.int16)
    for number, values in enumerate(classes, start=1):
        np.maximum(
            chosen, np.multiply(values > best, number, dtype=np.int16), out=chosen
        )  # of classes so far, the last
        np.maximum(best, values, out=best)
    return chosen


def choose_region(logits: Iterable[NDArray[np.floating]]) -> NDArray[np.int16]:
    """Returns the number, from 1, of the last region whose logit is positive (probability above 1/2), or 0.

    If a region is the last positive one at all corners of a cell, it is so in the whole cell: there its interpolated
    logit is positive, and those of later regions are not.

    Example:
        >>> choose_region(np.array([[1.0, 1.0, -1.0], [2.0, -2.0, -2.0]])).tolist()
        [2, 1, 0]
    """
    regions = iter(logits)
    first = next(regions)
    chosen = (np.asarray(first) > 0).astype(np.int16)
    for number, values in enumerate(regions, start=2):
        np.copyto(chosen, np.int16(number), where=values > 0)
    return chosen


def _prepare_axes(old: tuple[int, ...], new: Shape, separate: int | None) -> _Axes:
    z, y, x = (
        _prepare_axis(before, after, order=0 if axis == separate else 1)
        for axis, (before, after) in enumerate(zip(old, new, strict=True))
    )
    return z, y, x


def _prepare_axis(old: int, new: int, order: Order) -> _Axis:
    matrix = resampling_matrix(old, new, order)
    lower = (matrix != 0).argmax(axis=1)
    upper = np.minimum(lower + 1, old - 1)
    rows = np.arange(new)
    return _Axis(
        lower=lower,
        upper=upper,
        weights=np.stack([matrix[rows, lower], np.where(upper > lower, matrix[rows, upper], 0.0)]),
        nearest=resampling_matrix(old, new, 0).argmax(axis=1),
    )


def _take_grid(volume: NDArray[Any], indices: Sequence[NDArray[np.intp]]) -> NDArray[Any]:
    """Returns the voxels at all combinations of indices (z, y, x).

    It goes axis by axis, which is several times as fast as one index of three axes.
    """
    z, y, x = indices
    return volume.take(x, axis=2).take(y, axis=1).take(z, axis=0)


def _mark_mixed_cells(labels: NDArray[np.integer], axes: _Axes) -> NDArray[np.bool_]:
    """Marks each voxel whose cell, up to the next voxel along every interpolated axis, holds several labels.

    For a row of the labels 1 1 2, the second voxel is marked: new voxels between it and the third must be interpolated.
    """
    low = high = labels
    for number, axis in enumerate(axes):
        if axis.weights[1].any():
            following = np.minimum(np.arange(labels.shape[number]) + 1, labels.shape[number] - 1)
            low = np.minimum(low, low.take(following, axis=number))
            high = np.maximum(high, high.take(following, axis=number))
    return np.asarray(low != high)


def _find_mixed(labels: NDArray[np.integer], axes: _Axes) -> Iterator[_VoxelIndices]:
    """Yields the indices of new voxels in mixed cells, some planes at a time to bound the memory."""
    z, y, x = axes
    plane = len(y.lower) * len(x.lower)
    step = max(1, VOXELS_AT_ONCE // plane)
    for start in range(0, len(z.lower), step):
        planes = slice(start, start + step)
        first, last = z.lower[planes].min(), z.upper[planes].max()
        mixed = _mark_mixed_cells(labels[first : last + 1], axes)
        indices = np.flatnonzero(_take_grid(mixed, [z.lower[planes] - first, y.lower, x.lower])) + start * plane
        yield from (indices[begin : begin + MIXED_AT_ONCE] for begin in range(0, len(indices), MIXED_AT_ONCE))


def _find_corners(old: tuple[int, ...], axes: _Axes, indices: _VoxelIndices) -> _Corners:
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


@dataclass(frozen=True, slots=True)
class _NewPlane:
    """A new plane (y, x), of whose voxels only those in mixed cells are interpolated.

    Decision: logits are interpolated axis by axis, whole planes along z, whole rows along y, and single voxels along x.
    A new voxel then takes two values of each output from memory, and not those at the eight corners of its cell.

    Attributes:
        logits: Shape (outputs, old y, old x), float32: those of the plane, still on the old grid.
        mixed: Shape (new y, new x): the voxels in mixed cells.
        y, x: The interpolation along these axes.
    """

    logits: NDArray[np.float32]
    mixed: NDArray[np.bool_]
    y: _Axis
    x: _Axis

    @classmethod
    def of(cls, logits: NDArray[np.floating], mixed_cells: NDArray[np.bool_], axes: _Axes, number: int) -> Self:
        """Interpolates along z; with no mixed voxel nothing is calculated."""
        z, y, x = axes
        lower, upper, (weight, rest) = z.lower[number], z.upper[number], z.weights[:, number].astype(np.float32)
        mixed = mixed_cells[lower].take(y.lower, axis=0).take(x.lower, axis=1)
        plane = (
            np.multiply(logits[:, lower], weight, dtype=np.float32) if mixed.any() else np.empty((0, 0, 0), np.float32)
        )
        if plane.size and rest:
            plane += np.multiply(logits[:, upper], rest, dtype=np.float32)
        return cls(logits=plane, mixed=mixed, y=y, x=x)

    def interpolate_mixed(self) -> Iterator[tuple[_VoxelIndices, NDArray[np.float32]]]:
        """Yields indices into the flattened plane, and the logits (outputs, n) there, for some rows at a time."""
        (rows,) = np.nonzero(self.mixed.any(axis=1))
        at_once = max(1, len(rows) * CHOSEN_AT_ONCE // max(1, int(np.count_nonzero(self.mixed))))
        for part in (rows[start : start + at_once] for start in range(0, len(rows), at_once)):
            lower, upper = self.y.weights[:, part, np.newaxis].astype(np.float32)
            lines = self.logits.take(self.y.lower[part], axis=1) * lower
            lines += self.logits.take(self.y.upper[part], axis=1) * upper
            line, column = np.nonzero(self.mixed[part])
            lines, start = lines.reshape(len(lines), -1), line * self.logits.shape[2]
            lower, upper = self.x.weights[:, column].astype(np.float32)
            values = lines.take(start + self.x.lower[column], axis=1)
            values *= lower
            following = lines.take(start + self.x.upper[column], axis=1)
            following *= upper
            values += following
            yield part[line] * self.mixed.shape[1] + column, values


def _call_in_threads(work: Callable[[int], None], count: int) -> None:
    """Calls a function of NumPy's, which frees the lock of Python, with each number below `count`."""
    threads = min(MOST_THREADS, count_cores(), count)
    if threads < 2:
        for number in range(count):
            work(number)
        return
    with ThreadPool(threads, name="labels") as pool:
        for part in [pool.submit(_call_each, work, range(first, count, threads)) for first in range(threads)]:
            part.result()


def _call_each(work: Callable[[int], None], numbers: Iterable[int]) -> None:
    for number in numbers:
        work(number)
