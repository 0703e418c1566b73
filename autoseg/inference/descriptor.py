"""What tells a scan from others, as a short vector: how bright and how full the surroundings of its structures are."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

CELLS = 4
"""Cells along each axis. Decision: 64 cells show form and surroundings of a structure, and average noise out."""

MARGIN = 0.25
"""Margin of the box around the foreground on each side, as a share of its size."""


def describe_image(image: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns the mean intensity and the share of the foreground in each cell of a box around the foreground.

    Decision: of the image as the network sees it and not of features within a network, so that it exists for networks
    of every kind and is the same for all folds. If there is no foreground, the box is the whole image.

    Args:
        image: Preprocessed image, shape (c, z, y, x).
        foreground: Where any structure is, shape (z, y, x).

    Returns:
        Shape ((c + 1) * 64 + 1,): the cells of each channel, those of the foreground, and the logarithm of its number
        of voxels plus one.

    Example:
        >>> image = np.zeros((1, 8, 8, 8), np.float32)
        >>> image[:, :, :, 4:] = 1
        >>> vector = describe_image(image, np.ones((8, 8, 8), bool))
        >>> vector.shape, vector[:4].tolist(), round(float(vector[-1]), 3)
        ((129,), [0.0, 0.0, 1.0, 1.0], 6.24)
    """
    box = _find_box(foreground)
    cells = [_average_cells(part) for part in (*image[(slice(None), *box)], foreground[box].astype(np.float32))]
    return np.concatenate([*cells, [np.log1p(np.count_nonzero(foreground))]]).astype(np.float32)


def _find_box(foreground: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Returns the box of the foreground with its margin, within the image; the whole image without foreground."""
    sides = []
    for axis in range(3):
        found = np.flatnonzero(foreground.any(axis=tuple(other for other in range(3) if other != axis)))
        size = foreground.shape[axis]
        first, last = (int(found[0]), int(found[-1])) if len(found) else (0, size - 1)
        margin = round(MARGIN * (last - first + 1))
        sides.append(slice(max(0, first - margin), min(size, last + 1 + margin)))
    return sides[0], sides[1], sides[2]


def _average_cells(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the mean of each cell, (64,); where there are fewer voxels than cells, cells share voxels.

    Example:
        >>> _average_cells(np.arange(2, dtype=np.float32).reshape(1, 1, 2))[:4].tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    for axis, size in enumerate(array.shape):
        edges = [size * cell // CELLS for cell in range(CELLS + 1)]
        parts = (array.take(range(low, max(low + 1, high)), axis=axis) for low, high in pairwise(edges))
        array = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    return array.reshape(-1)
