"""Smooth random displacements of voxels: random at the points of a coarse grid, cubic splines between them."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy
import torch
from numpy.typing import NDArray


def count_points(size: int, spacing_voxels: float) -> int:
    """Returns the number of grid points along an axis, so that all voxels lie between two points; at least two.

    Args:
        size: Number of voxels along the axis.
        spacing_voxels: Distance of neighbouring points, in voxels.

    Example:
        >>> count_points(5, 4.0), count_points(6, 4.0)
        (2, 3)
    """
    return max(2, math.ceil((size - 1) / spacing_voxels) + 1)


@lru_cache(maxsize=64)
def spline_weights(size: int, spacing_voxels: float) -> NDArray[np.float32]:
    """Returns the weight of each grid point for each voxel of an axis.

    The spline is cubic and goes through the values at the points, which lie symmetrically about the middle of the axis.
    Example: 5 voxels with a spacing of 4 have two points, on the first and the last voxel.

    Decision: beyond the first and the last point the spline goes on as its own mirror image, so that two points are
    enough. Source of cubic splines on a coarse grid: V-Net (Milletari et al. 2016), section 3; 3D U-Net (Çiçek et al.
    2016), section 4.

    Args:
        size: Number of voxels along the axis.
        spacing_voxels: Distance of neighbouring points, in voxels.

    Returns:
        Weights, shape (size, points); each row sums to 1.
    """
    points = count_points(size, spacing_voxels)
    positions = (np.arange(size) - (size - 1) / 2) / spacing_voxels + (points - 1) / 2
    columns = [scipy.ndimage.map_coordinates(row, [positions], order=3, mode="mirror") for row in np.eye(points)]
    return np.stack(columns, axis=1).astype(np.float32)


def spline_tensors(patch: Sequence[int], spacing_voxels: float) -> tuple[torch.Tensor, ...]:
    """Returns `spline_weights` of each axis."""
    return tuple(torch.from_numpy(spline_weights(size, spacing_voxels)) for size in patch)


def smooth_field(displacements: torch.Tensor, splines: Sequence[torch.Tensor]) -> torch.Tensor:
    """Interpolates the displacement of each voxel of a patch from those of the grid points.

    Args:
        displacements: Displacements of the points along d axes, in voxels; shape (..., d, *points).
        splines: What `spline_tensors` returns for the size of the patch along the same d axes, on the same device.

    Returns:
        Displacements of the voxels, in voxels; shape (..., d, *patch).

    Example:
        >>> smooth_field(torch.ones(2, 3, 3), spline_tensors((9, 7), spacing_voxels=4.0)).shape
        torch.Size([2, 9, 7])
    """
    field = displacements
    for axis, weights in zip(range(-len(splines), 0), splines, strict=True):
        field = (field.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return field
