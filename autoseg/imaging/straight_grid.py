"""Resampling of sheared images, such as CT with a tilted gantry, to grids whose axes are at right angles.

The slices stay in their planes, and so do the rows of each slice in their lines: only their starts move. So nothing is
interpolated across slices, a voxel of the new grid has the volume of an old one, and a gantry tilt becomes a shift of
each slice along its columns. Source: the QR decomposition of the matrix of the axes, whose upper triangle has these
steps.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from autoseg.imaging.geometry import Geometry, Matrix, Shape, Vector, Volume

COARSE = 2.0
"""Ratio of spacings above which the axis of the largest one counts as that across slices; else it is the first axis of
the array, as in nearly all files. Decision: planes are then kept where the voxels are fine."""

ROUNDING = 1e-3
"""Part of a voxel by which the new grid may end before the outermost old one. Decision: an image and its mask, whose
headers are rounded differently, get the same grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StraightGrid:
    """A straight grid that covers a sheared one.

    Attributes:
        geometry: The straight grid; all voxel centres of the sheared one lie inside.
        matrix: Shape (3, 3): steps in the sheared grid, (z, y, x), of a step along each axis of the straight one.
        offset: Index in the sheared grid, (z, y, x), of the first voxel of the straight one.
        old_shape: Number of voxels of the sheared grid along (z, y, x).
    """

    geometry: Geometry
    matrix: NDArray[np.floating]
    offset: NDArray[np.floating]
    old_shape: Shape


def plan_straight_grid(geometry: Geometry) -> StraightGrid:
    """Plans the straight grid for an image whose axes are sheared.

    Args:
        geometry: The sheared grid; a straight one stays as it is.

    Example:
        >>> tilted = Geometry(
        ...     shape=(11, 20, 20),
        ...     spacing_mm=(5.0, 1.0, 1.0),
        ...     direction=((0.8, 0.0, 0.0), (0.6, 1.0, 0.0), (0.0, 0.0, 1.0)),
        ... )
        >>> grid = plan_straight_grid(tilted).geometry
        >>> grid.shape, grid.spacing_mm, grid.origin_mm
        ((11, 50, 20), (4.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    """
    order = _order_axes(geometry.spacing_mm)
    steps = np.asarray(geometry.direction) * np.asarray(geometry.spacing_mm)
    directions, triangle = np.linalg.qr(steps[:, order])
    signs = np.where(np.diag(triangle) < 0, -1.0, 1.0)
    directions, triangle = directions * signs, triangle * signs[:, np.newaxis]
    back = np.argsort(order)
    directions, triangle = directions[:, back], triangle[back][:, back]
    spacing = np.diag(triangle)
    to_new = triangle / spacing[:, np.newaxis]  # an index in the sheared grid, in steps of the straight one
    ends = np.stack(np.meshgrid(*[(0, size - 1) for size in geometry.shape], indexing="ij")).reshape(3, -1)
    reached = to_new @ ends
    first = np.floor(reached.min(axis=1) + ROUNDING)
    last = np.ceil(reached.max(axis=1) - ROUNDING)
    to_old = np.linalg.inv(to_new)
    straight = Geometry(
        shape=_shape(last - first + 1),
        spacing_mm=_vector(spacing),
        origin_mm=_vector(geometry.origin_mm + directions @ (first * spacing)),
        direction=_matrix(directions),
    )
    return StraightGrid(geometry=straight, matrix=to_old, offset=to_old @ first, old_shape=geometry.shape)


def straighten(volume: Volume, kind: Literal["image", "labels"]) -> Volume:
    """Resamples a sheared volume to the grid of `plan_straight_grid`.

    Args:
        volume: Shape (c, z, y, x), of any type of numbers.
        kind: An image is interpolated linearly, and rounded if its numbers are whole; outside it has the smallest
            value of each channel, which is air in CT. Of labels, each voxel takes that of the nearest voxel, and 0
            outside.

    Returns:
        The volume on the straight grid, in the same type of numbers.
    """
    grid = plan_straight_grid(volume.geometry)
    array = np.empty((len(volume.array), *grid.geometry.shape), dtype=volume.array.dtype)
    fills = [0 if kind == "labels" else channel.min() for channel in volume.array]
    for z in range(grid.geometry.shape[0]):
        outside = _find_outside(grid, z)
        for channel, target, fill in zip(volume.array, array, fills, strict=True):
            target[z] = np.where(outside, fill, _resample_slice(channel, grid, z, order=0 if kind == "labels" else 1))
    return Volume(array=array, geometry=grid.geometry)


def _resample_slice(channel: NDArray[Any], grid: StraightGrid, z: int, order: Literal[0, 1]) -> NDArray[Any]:
    """Returns a slice of the straight grid, shape (y, x); whole numbers are rounded."""
    is_whole = not np.issubdtype(channel.dtype, np.floating)
    values: NDArray[Any] = scipy.ndimage.affine_transform(
        channel,
        grid.matrix,
        grid.offset + z * grid.matrix[:, 0],
        output_shape=(1, *grid.geometry.shape[1:]),
        output=channel.dtype if order == 0 else np.float64,
        order=order,
        mode="nearest",
    )[0]
    return np.rint(values) if order == 1 and is_whole else values


def _find_outside(grid: StraightGrid, z: int) -> NDArray[np.bool_]:
    """Returns the voxels of a slice whose centre lies in no voxel of the sheared grid, shape (y, x)."""
    y, x = np.ogrid[: grid.geometry.shape[1], : grid.geometry.shape[2]]
    outside = np.zeros(grid.geometry.shape[1:], dtype=bool)
    for row, start, size in zip(grid.matrix, grid.offset, grid.old_shape, strict=True):
        index = start + row[0] * z + row[1] * y + row[2] * x
        outside |= (index < -0.5 - ROUNDING) | (index > size - 0.5 + ROUNDING)
    return outside


def _order_axes(spacing_mm: Vector) -> list[int]:
    """Returns the array axes in the order in which they keep their directions; that across slices is the last."""
    coarsest = int(np.argmax(spacing_mm))
    others = [step for axis, step in enumerate(spacing_mm) if axis != coarsest]
    slices = coarsest if spacing_mm[coarsest] > COARSE * max(others) else 0
    return [*(axis for axis in (2, 1, 0) if axis != slices), slices]


def _shape(values: NDArray[np.floating]) -> Shape:
    z, y, x = (int(value) for value in values)
    return z, y, x


def _vector(values: NDArray[np.floating]) -> Vector:
    z, y, x = (float(value) for value in values)
    return z, y, x


def _matrix(values: NDArray[np.floating]) -> Matrix:
    first, second, third = (_vector(row) for row in values)
    return first, second, third
