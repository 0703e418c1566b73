"""Linear interpolation of a volume, axis by axis, and the cells in which it can change a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape
from autoseg.preprocessing.resampling import Order, resampling_matrix


@dataclass(frozen=True, slots=True)
class Axis:
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


Axes = tuple[Axis, Axis, Axis]
"""Those of z, y and x."""


def prepare_axes(old: tuple[int, ...], new: Shape, separate: int | None) -> Axes:
    """Returns how a volume is interpolated linearly.

    Example:
        >>> _, _, x = prepare_axes((1, 1, 2), (1, 1, 4), separate=None)
        >>> x.lower.tolist(), x.weights[0].tolist(), x.nearest.tolist()
        ([0, 0, 0, 1], [1.0, 0.75, 0.25, 1.0], [0, 0, 1, 1])

    Args:
        old: Shape (z, y, x) of the volume.
        new: Shape of the result.
        separate: Axis along which the nearest slice is taken instead; see `separate_axis`.
    """
    z, y, x = (
        _prepare_axis(before, after, order=0 if axis == separate else 1)
        for axis, (before, after) in enumerate(zip(old, new, strict=True))
    )
    return z, y, x


def _prepare_axis(old: int, new: int, order: Order) -> Axis:
    matrix = resampling_matrix(old, new, order)
    lower = (matrix != 0).argmax(axis=1)
    upper = np.minimum(lower + 1, old - 1)
    rows = np.arange(new)
    return Axis(
        lower=lower,
        upper=upper,
        weights=np.stack([matrix[rows, lower], np.where(upper > lower, matrix[rows, upper], 0.0)]),
        nearest=resampling_matrix(old, new, 0).argmax(axis=1),
    )


def take_grid(volume: NDArray[Any], indices: Sequence[NDArray[np.intp]]) -> NDArray[Any]:
    """Returns the voxels at all combinations of indices (z, y, x).

    It goes axis by axis, which is several times as fast as one index of three axes.
    """
    z, y, x = indices
    return volume.take(x, axis=2).take(y, axis=1).take(z, axis=0)


def mark_mixed_cells(labels: NDArray[np.integer], axes: Axes) -> NDArray[np.bool_]:
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
