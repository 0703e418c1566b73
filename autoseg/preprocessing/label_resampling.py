"""Resampling label maps, and logits to label maps: the class that wins by linear interpolation.

Linear interpolation keeps the winner wherever all corners of a cell agree. So every new voxel takes the label of its
nearest old voxel, and only those in cells of several labels are interpolated. The result is that of interpolating every
class everywhere, but no array of classes x new voxels is ever made; with 24 classes, from 100 x 256 x 256 to
150 x 400 x 400 voxels, it takes an eighth of the time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape, Vector
from autoseg.preprocessing.resampling import Order, resampling_matrix, separate_axis

# Decision: both bound the memory to some MB, and keep what is looked at in the cache of a core.
VOXELS_AT_ONCE = 2**20  # New voxels that are searched for mixed cells together
MIXED_AT_ONCE = 2**16  # New voxels in mixed cells whose neighbours are gathered together


@dataclass(frozen=True, slots=True)
class _Line:
    """Linear interpolation along one axis: each new voxel lies between two old ones.

    Attributes:
        lower, upper: The old voxels on either side of each new one; the same at a border.
        weights: Shape (2, new): of `lower` and of `upper`; they sum to 1.
        nearest: The nearest old voxel.
    """

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weights: NDArray[np.float64]
    nearest: NDArray[np.intp]


Labels = TypeVar("Labels", bound=NDArray[np.integer])
"""A label map in some encoding, see `label_encoding`; resampling keeps it."""

Election = Callable[[Iterable[NDArray[np.floating]]], NDArray[np.int16]]
"""Logits of each output, of any shape, to a number for each voxel."""

_Lines = tuple[_Line, _Line, _Line]
_Places = NDArray[np.intp]  # of new voxels, in the flattened new volume


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """The eight old voxels around each of n new ones.

    Attributes:
        index: Shape (8, n): places in the flattened old volume.
        weights: Shape (8, n), float64: shares in the new voxel; they sum to 1.
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
        spacing_mm: Of the label map.
        shape: Wanted (z, y, x).
        target_spacing_mm: Of the result; decides, with `spacing_mm`, whether slices are kept apart.

    Returns:
        The wanted shape, in the integer type of `labels`; `labels` itself if it has that shape already.
    """
    if labels.shape == shape:
        return labels
    contiguous = np.ascontiguousarray(labels)  # else each look at it would copy it
    lines = _make_lines(labels.shape, shape, separate_axis(spacing_mm, target_spacing_mm))
    result = _pick(contiguous, [line.nearest for line in lines])
    voxels = result.reshape(-1)
    for places in _find_mixed(contiguous, lines):
        neighbours = _find_neighbours(contiguous.shape, lines, places)
        voxels[places] = _elect_label(contiguous.take(neighbours.index), neighbours.weights, nearest=voxels[places])
    return cast(Labels, result)


def elect_resampled(
    logits: NDArray[np.floating], elect: Election, spacing_mm: Vector, shape: Shape, target_spacing_mm: Vector
) -> NDArray[np.uint8] | NDArray[np.int16]:
    """Who is elected after linear interpolation of all logits, without ever holding outputs x wanted shape.

    Along an axis that keeps slices apart the nearest slice is taken.

    Args:
        logits: Shape (outputs, z, y, x), of 16 or 32 bit.
        elect: `elect_highest` for classes, `elect_last` for regions.
        spacing_mm: Of the logits.
        shape: Wanted (z, y, x).
        target_spacing_mm: Of the result; decides, with `spacing_mm`, whether slices are kept apart.

    Returns:
        The wanted shape, uint8, or int16 if there are more than 255 outputs.
    """
    dtype = np.uint8 if len(logits) <= 255 else np.int16
    elected = np.stack([elect(logits[:, index]).astype(dtype) for index in range(logits.shape[1])])
    if elected.shape == shape:
        return elected
    lines = _make_lines(elected.shape, shape, separate_axis(spacing_mm, target_spacing_mm))
    result = _pick(elected, [line.nearest for line in lines])
    voxels = result.reshape(-1)
    for places in _find_mixed(elected, lines):
        voxels[places] = elect(_interpolate(logits, _find_neighbours(elected.shape, lines, places)))
    return result


def elect_highest(logits: Iterable[NDArray[np.floating]]) -> NDArray[np.int16]:
    """The number of the class with the largest logit, by a running maximum; where classes draw, the lowest."""
    classes = iter(logits)
    best = np.array(next(classes), dtype=np.float32)
    winner = np.zeros(best.shape, dtype=np.int16)
    for number, values in enumerate(classes, start=1):
        np.copyto(winner, np.int16(number), where=values > best)
        np.maximum(best, values, out=best)
    return winner


def elect_last(logits: Iterable[NDArray[np.floating]]) -> NDArray[np.int16]:
    """The number, from 1, of the last region whose logit is positive, so that it is likelier than not; 0 if none is.

    If it is the last one at all corners of a cell, it is so in all of the cell: there its interpolated logit is
    positive, and those of later regions are not.
    """
    regions = iter(logits)
    first = next(regions)
    winner = (np.asarray(first) > 0).astype(np.int16)
    for number, values in enumerate(regions, start=2):
        np.copyto(winner, np.int16(number), where=values > 0)
    return winner


def _make_lines(old: tuple[int, ...], new: Shape, separate: int | None) -> _Lines:
    z, y, x = (
        _make_line(before, after, order=0 if axis == separate else 1)
        for axis, (before, after) in enumerate(zip(old, new, strict=True))
    )
    return z, y, x


def _make_line(old: int, new: int, order: Order) -> _Line:
    matrix = resampling_matrix(old, new, order)
    lower = (matrix != 0).argmax(axis=1)
    upper = np.minimum(lower + 1, old - 1)
    rows = np.arange(new)
    return _Line(
        lower=lower,
        upper=upper,
        weights=np.stack([matrix[rows, lower], np.where(upper > lower, matrix[rows, upper], 0.0)]),
        nearest=resampling_matrix(old, new, 0).argmax(axis=1),
    )


def _pick(volume: NDArray[Any], places: Sequence[NDArray[np.intp]]) -> NDArray[Any]:
    """The voxels at all combinations of places (z, y, x); axis by axis, which is several times as fast as one index."""
    z, y, x = places
    return volume.take(x, axis=2).take(y, axis=1).take(z, axis=0)


def _mark_mixed_cells(labels: NDArray[np.integer], lines: _Lines) -> NDArray[np.bool_]:
    """Marks each voxel whose cell, up to the next voxel along every axis that is interpolated, holds several labels.

    For the labels 1 1 2 on a line, the second voxel is marked: new voxels between it and the third need a closer look.
    """
    low = high = labels
    for axis, line in enumerate(lines):
        if line.weights[1].any():
            following = np.minimum(np.arange(labels.shape[axis]) + 1, labels.shape[axis] - 1)
            low = np.minimum(low, low.take(following, axis=axis))
            high = np.maximum(high, high.take(following, axis=axis))
    return np.asarray(low != high)


def _find_mixed(labels: NDArray[np.integer], lines: _Lines) -> Iterator[_Places]:
    """Finds the new voxels that lie in mixed cells, some planes at a time to bound the memory."""
    z, y, x = lines
    plane = len(y.lower) * len(x.lower)
    step = max(1, VOXELS_AT_ONCE // plane)
    for start in range(0, len(z.lower), step):
        planes = slice(start, start + step)
        first, last = z.lower[planes].min(), z.upper[planes].max()
        mixed = _mark_mixed_cells(labels[first : last + 1], lines)
        places = np.flatnonzero(_pick(mixed, [z.lower[planes] - first, y.lower, x.lower])) + start * plane
        yield from (places[begin : begin + MIXED_AT_ONCE] for begin in range(0, len(places), MIXED_AT_ONCE))


def _find_neighbours(old: tuple[int, ...], lines: _Lines, places: _Places) -> _Neighbours:
    count, (_, height, width) = len(places), old
    index = np.zeros((2, 2, 2, count), dtype=np.intp)
    weights = np.ones((2, 2, 2, count))
    voxels = np.unravel_index(places, [len(line.lower) for line in lines])
    for axis, (line, voxel, stride) in enumerate(zip(lines, voxels, (height * width, width, 1), strict=True)):
        along = tuple(2 if other == axis else 1 for other in range(3))
        index += np.stack([line.lower[voxel], line.upper[voxel]]).reshape(*along, count) * stride
        weights *= line.weights[:, voxel].reshape(*along, count)
    return _Neighbours(index=index.reshape(8, count), weights=weights.reshape(8, count))


def _elect_label(
    around: NDArray[np.integer], weights: NDArray[np.float64], nearest: NDArray[np.integer]
) -> NDArray[np.integer]:
    """The label with the largest share around each voxel; nearly all voxels have two to choose from.

    Args:
        around: Shape (8, n): labels of the neighbours.
        weights: Shape (8, n): their shares.
        nearest: Shape (n,): labels of the nearest neighbours, which settle draws.
    """
    low, high = around.min(axis=0), around.max(axis=0)
    is_low, is_high = around == low, around == high
    share_of_low, share_of_high = _sum_shares(is_low, weights), _sum_shares(is_high, weights)
    takes_high = (share_of_high > share_of_low) | ((share_of_high == share_of_low) & (nearest == high))
    winner: NDArray[np.integer] = np.where(takes_high, high, low)
    (several,) = np.nonzero(~(is_low | is_high).all(axis=0))
    winner[several] = _elect_among_many(around[:, several], weights[:, several], nearest[several])
    return winner


def _elect_among_many(
    around: NDArray[np.integer], weights: NDArray[np.float64], nearest: NDArray[np.integer]
) -> NDArray[np.integer]:
    shares = np.stack([_sum_shares(around == label, weights) for label in around])
    on_top = shares == shares.max(axis=0)
    smallest = np.where(on_top, around, np.iinfo(around.dtype).max).min(axis=0)
    nearest_on_top = (on_top & (around == nearest)).any(axis=0)
    winner: NDArray[np.integer] = np.where(nearest_on_top, nearest, smallest)
    return winner


def _sum_shares(has_label: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums in the order of the neighbours, which decides the last bit and with it some draws."""
    total = np.zeros(weights.shape[1])
    for chosen, weight in zip(has_label, weights, strict=True):
        total += np.where(chosen, weight, 0.0)
    return total


def _interpolate(logits: NDArray[np.floating], neighbours: _Neighbours) -> Iterator[NDArray[np.floating]]:
    """The interpolated logits of some voxels, output by output."""
    weights = neighbours.weights.astype(np.float32)
    return (np.einsum("kn,kn->n", volume.take(neighbours.index), weights) for volume in logits)
