"""Blurring and low resolution as products with small matrices, for a whole batch on a device."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.dataloading.augmentation import coarse_size, gaussian_kernel
from autoseg.dataloading.augmentation_parameters import Amounts


def blur_matrices(patch: Sequence[int], sigmas_voxels: Amounts) -> list[NDArray[np.float32]]:
    """Returns the matrices that do to one channel what `augmentation.blur` does.

    Args:
        patch: Size of the patch, in voxels.
        sigmas_voxels: Standard deviation of the Gaussian along each axis, in voxels.

    Returns:
        A matrix (size, size) for each axis; an empty list if the standard deviations are 0.
    """
    return [_blur_matrix(size, float(sigma)) for size, sigma in zip(patch, sigmas_voxels, strict=True) if sigma]


def _blur_matrix(size: int, sigma_voxels: float) -> NDArray[np.float32]:
    """Returns the weights of the voxels of an axis (columns) for each blurred voxel (rows)."""
    kernel = gaussian_kernel(sigma_voxels)
    radius, rows = len(kernel) // 2, np.arange(size)
    matrix = np.zeros((size, size), dtype=np.float32)
    for shift, weight in enumerate(kernel, start=-radius):
        matrix[rows, (rows + shift).clip(0, size - 1)] += weight
    return matrix


def coarsening_matrices(
    patch: Sequence[int], axes: Sequence[int], factor: np.float32
) -> list[NDArray[np.float32] | None]:
    """Returns the matrices that do to one channel what `augmentation.lower_resolution` does.

    Args:
        patch: Size of the patch, in voxels.
        axes: Axes that lose resolution.
        factor: Share of the voxels that remain along each of these axes.

    Returns:
        A matrix (size, size) for each axis that loses resolution, None for the other axes; an empty list if the channel
        keeps its resolution.
    """
    if factor >= 1:
        return []
    return [_coarse_matrix(size, float(factor)) if axis in axes else None for axis, size in enumerate(patch)]


def _coarse_matrix(size: int, factor: float) -> NDArray[np.float32]:
    """Returns the matrix of an axis: nearest neighbours on a coarse axis, then linear interpolation back.

    Each row has two weights at most. Example: 4 voxels at a factor of one half keep the voxels 1 and 3; the rows are
    those of 1, 3/4 of 1 and 1/4 of 3, 1/4 of 1 and 3/4 of 3, and 3.
    """
    small, rows = coarse_size(size, factor), np.arange(size)
    step = np.float32(size) / np.float32(small)  # in the precision, and so with the rounding, of torch
    kept = ((np.arange(small, dtype=np.float32) + np.float32(0.5)) * step).astype(int).clip(0, size - 1)
    position = ((rows + 0.5) * small / size - 0.5).clip(0, small - 1)
    below = position.astype(int)
    matrix = np.zeros((size, size), dtype=np.float32)
    matrix[rows, kept[below]] += 1 - (position - below)
    matrix[rows, kept[(below + 1).clip(0, small - 1)]] += position - below
    return matrix
