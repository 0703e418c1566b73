"""Smooth random movements of voxels: random at a few points, cubic splines in between."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.runtime.device import copy_to


def count_points(size: int, spacing_voxels: float) -> int:
    """Points along an axis of `size` voxels, so that the first and the last voxel lie between points; at least two."""
    return max(2, math.ceil((size - 1) / spacing_voxels) + 1)


@lru_cache(maxsize=64)
def spline_weights(size: int, spacing_voxels: float) -> NDArray[np.float32]:
    """How much each point counts for each voxel of an axis.

    The spline is cubic and goes through the values at the points, which stand symmetrically about the middle of the
    axis. Example: 5 voxels with a spacing of 4 have two points, on the first and the last voxel.

    Decision: the spline goes on as its own mirror image beyond the first and the last point, so that two points are
    enough. Source of cubic splines on a coarse grid: V-Net (Milletari et al. 2016), section 3; 3D U-Net (Çiçek et al.
    2016), section 4.

    Returns:
        Shape (size, points); each row sums to 1.
    """
    points = count_points(size, spacing_voxels)
    places = (np.arange(size) - (size - 1) / 2) / spacing_voxels + (points - 1) / 2
    columns = [ndimage.map_coordinates(row, [places], order=3, mode="mirror") for row in np.eye(points)]
    return np.stack(columns, axis=1).astype(np.float32)


def smooth_field(displacements: torch.Tensor, patch: Sequence[int], spacing_voxels: float) -> torch.Tensor:
    """Movement of each voxel of a patch.

    Args:
        displacements: Movements of the points along d axes, in voxels; shape (..., d, *points).
        patch: Voxels along the same d axes.
        spacing_voxels: Distance of the points.

    Returns:
        Shape (..., d, *patch), on the device of `displacements`.
    """
    field = displacements
    for axis, size in zip(range(-len(patch), 0), patch, strict=True):
        weights = copy_to(torch.from_numpy(spline_weights(size, spacing_voxels)), field.device)
        field = (field.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return field
