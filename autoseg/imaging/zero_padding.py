"""Padding of images with zeros to a least size."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pad_to_size(image: NDArray[np.float32], size: Sequence[int]) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """Pads an image with zeros, evenly on both sides, or with one more after it than before it.

    Source: the reference method.

    Args:
        image: Shape (c, z, y, x).
        size: The size (z, y, x) that the image has at least afterwards.

    Returns:
        The padded image, and where in it the image is.
    """
    missing = [max(0, wanted - length) for wanted, length in zip(size, image.shape[1:], strict=True)]
    before = [voxels // 2 for voxels in missing]
    widths = [(first, voxels - first) for first, voxels in zip(before, missing, strict=True)]
    inside = tuple(slice(first, first + length) for first, length in zip(before, image.shape[1:], strict=True))
    return (np.pad(image, [(0, 0), *widths]) if any(missing) else image), inside
