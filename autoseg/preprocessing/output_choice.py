"""Resampling of logits to a label map, by linear interpolation; see `label_resampling` for the way that is saved."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape, Vector
from autoseg.preprocessing.linear_axes import Axes, Axis, mark_mixed_cells, prepare_axes, take_grid
from autoseg.preprocessing.resampling import separate_axis
from autoseg.runtime.machine import count_cores
from autoseg.runtime.thread_pool import ThreadPool

CHOSEN_AT_ONCE = 2**14
"""Number of new voxels in mixed cells for which an output is chosen together. Decision: it bounds the memory to some
MB, and calls of NumPy are long enough that the way to them does not count."""

MOST_THREADS = 8
"""Decision: with more threads, the memory is the limit."""

ChooseOutput = Callable[[Iterable[NDArray[np.floating]]], NDArray[np.int16]]
"""Function from the logits of each output, of any shape, to the number of the chosen output at each voxel."""


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
    axes = prepare_axes(chosen.shape, shape, separate_axis(spacing_mm, target_spacing_mm))
    result = take_grid(chosen, [axis.nearest for axis in axes])
    mixed_cells = mark_mixed_cells(chosen, axes)

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
        if_better = np.multiply(values > best, number, dtype=np.int16)
        np.maximum(chosen, if_better, out=chosen)  # later classes have larger numbers
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
    y: Axis
    x: Axis

    @classmethod
    def of(cls, logits: NDArray[np.floating], mixed_cells: NDArray[np.bool_], axes: Axes, number: int) -> Self:
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

    def interpolate_mixed(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
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
