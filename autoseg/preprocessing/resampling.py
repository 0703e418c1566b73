"""Resampling of images to another grid over the same part of space, from border to border.

Spline interpolation is linear and separable, so along one axis it is a product with a matrix. The matrix is obtained by
resampling the identity, and only a band of it matters. From 150 x 512 x 512 to 300 x 400 x 400 voxels this takes 0.3 s
on one core; the general routine of scipy and skimage takes 10 s for the same numbers.

Source of the rules: the reference method (nnU-Net v2.8.1, default resampling): images are resampled by cubic splines,
label maps and logits linearly; along the coarse axis of an anisotropic image the nearest slice is taken instead.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from autoseg.imaging.geometry import Shape, Vector

# Ratio of largest to smallest spacing above which slices are kept apart. Source: the reference method
ANISOTROPY_THRESHOLD = 3

Order = Literal[0, 1, 3]
"""Order of a spline: 0 takes the nearest voxel, 1 is linear, 3 is cubic."""

IMAGE_ORDER: Order = 3

# Weight of an old voxel in a new one that is left out. Decision: all of them together change less than rounding does.
NEGLIGIBLE = 1e-9

# Number of new voxels along a row that are computed together. Decision: large enough for a fast product
BLOCK_VOXELS = 64

Image = NDArray[np.float32]


@lru_cache(maxsize=16)
def resampling_matrix(old: int, new: int, order: Order) -> NDArray[np.float64]:
    """Returns the matrix that resamples a row of `old` voxels to `new` voxels, from border to border.

    Values beyond the border are those of the outermost voxel.

    Args:
        old: Number of voxels before.
        new: Number of voxels after.
        order: Order of the spline.

    Returns:
        Shape (new, old), float64, read-only; each row sums to 1.

    Example:
        >>> resampling_matrix(4, 2, 1).tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
        >>> resampling_matrix(2, 4, 0).tolist()
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    matrix: NDArray[np.float64] = scipy.ndimage.zoom(
        np.eye(old), (new / old, 1), order=order, mode="nearest", grid_mode=True
    )
    matrix.flags.writeable = False
    return matrix


def separate_axis(spacing_mm: Vector, target_spacing_mm: Vector) -> int | None:
    """Returns the axis along which slices are kept apart, or None.

    It is the coarsest axis of the image if the image is anisotropic, else that of the target if the target is; there is
    none if two axes share the coarsest spacing. Source: the reference method.

    Example:
        >>> separate_axis((5.0, 1.0, 1.0), (1.0, 1.0, 1.0)), separate_axis((3.0, 1.0, 1.0), (1.0, 1.0, 1.0))
        (0, None)
    """
    for spacing in (spacing_mm, target_spacing_mm):
        if max(spacing) / min(spacing) > ANISOTROPY_THRESHOLD:
            return spacing.index(max(spacing)) if spacing.count(max(spacing)) == 1 else None
    return None


def resample_image(
    image: NDArray[np.float32],
    spacing_mm: Vector,
    shape: Shape,
    target_spacing_mm: Vector,
    order: Order = IMAGE_ORDER,
) -> NDArray[np.float32]:
    """Resamples an image by splines, cubic ones unless another order is given.

    Cubic splines overshoot at edges, so the result is clipped to the range of the input: of each channel, or of each
    slice where slices are kept apart.

    Args:
        image: Shape (c, z, y, x).
        spacing_mm: Spacing of the image, (z, y, x).
        shape: Shape of the result, (z, y, x).
        target_spacing_mm: Spacing of the result; with `spacing_mm` it decides whether slices are kept apart.
        order: Order of the splines.

    Returns:
        Shape (c, *shape); the image itself if it has that shape already.

    Example:
        >>> image = np.array([[[[0.0, 2.0, 4.0, 6.0]]]], dtype=np.float32)
        >>> resample_image(image, (1.0, 1.0, 1.0), (1, 1, 2), (1.0, 1.0, 2.0), order=1).tolist()
        [[[[1.0, 5.0]]]]
    """
    if image.shape[1:] == shape:
        return image
    separate = separate_axis(spacing_mm, target_spacing_mm)
    result = np.empty((len(image), *shape), dtype=np.float32)
    for channel, target in zip(image, result, strict=True):
        if separate is None:
            _multiply_axes(channel, order, out=target)
            np.clip(target, channel.min(), channel.max(), out=target)
        else:
            _resample_slices(channel, separate, order, out=target)
    return result


def _resample_slices(channel: Image, separate: int, order: Order, out: Image) -> None:
    nearest = resampling_matrix(channel.shape[separate], out.shape[separate], order=0).argmax(axis=1)
    used, index = np.unique(nearest, return_inverse=True)
    slices = channel.take(used, axis=separate)
    in_plane = tuple(axis for axis in range(3) if axis != separate)
    low, high = slices.min(axis=in_plane, keepdims=True), slices.max(axis=in_plane, keepdims=True)
    planes = np.empty((*out.shape[:separate], len(used), *out.shape[separate + 1 :]), dtype=np.float32)
    _multiply_axes(slices, order, out=planes)
    np.clip(planes, low, high, out=planes)
    np.take(planes, index, axis=separate, out=out, mode="clip")  # "clip" needs no buffer; all indices are valid


def _multiply_axes(volume: Image, order: Order, out: Image) -> None:
    """Resamples along each axis whose size changes; axes that shrink come first, which saves work."""
    axes = [axis for axis in range(3) if out.shape[axis] != volume.shape[axis]]
    axes.sort(key=lambda axis: out.shape[axis] / volume.shape[axis])
    for axis in axes[:-1]:
        larger = np.empty((*volume.shape[:axis], out.shape[axis], *volume.shape[axis + 1 :]), dtype=np.float32)
        _multiply_axis(volume, axis, order, out=larger)
        volume = larger
    if axes:
        _multiply_axis(volume, axes[-1], order, out=out)
    else:
        out[...] = volume


def _multiply_axis(volume: Image, axis: int, order: Order, out: Image) -> None:
    """Multiplies along one axis, block by block."""
    before, old, new = math.prod(volume.shape[:axis]), volume.shape[axis], out.shape[axis]
    for block in _split_into_blocks(old, new, order):
        if axis == 2:
            rows = volume.reshape(before, old)[:, block.old]
            np.matmul(rows, block.weights.T, out=out.reshape(before, new)[:, block.new])
        else:
            planes = volume.reshape(before, old, -1)[:, block.old]
            np.matmul(block.weights, planes, out=out.reshape(before, new, -1)[:, block.new])


@dataclass(frozen=True, slots=True)
class _Block:
    """Part of a resampling matrix: neighbouring new voxels of a row, and the old voxels that they depend on.

    Attributes:
        new, old: Rows and columns of the matrix.
        weights: Shape (new, old), float32.
    """

    new: slice
    old: slice
    weights: Image


@lru_cache(maxsize=16)
def _split_into_blocks(old: int, new: int, order: Order) -> tuple[_Block, ...]:
    """Cuts a resampling matrix into blocks: a new voxel hardly depends on old ones that are far away.

    The weights of a cubic spline fall by a factor of 3.7 per voxel, so some 15 voxels on either side remain. From 512
    to 400 voxels this saves four fifths of the work.
    """
    matrix = resampling_matrix(old, new, order)
    blocks = []
    for start in range(0, new, BLOCK_VOXELS):
        rows = slice(start, min(start + BLOCK_VOXELS, new))
        (needed,) = np.nonzero(np.abs(matrix[rows]).max(axis=0) > NEGLIGIBLE)
        columns = slice(int(needed[0]), int(needed[-1]) + 1)
        blocks.append(_Block(new=rows, old=columns, weights=np.ascontiguousarray(matrix[rows, columns], np.float32)))
    return tuple(blocks)
