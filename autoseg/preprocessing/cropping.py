"""Cropping to the region that is not zero: scanners and skull-stripping tools leave wide empty borders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from autoseg.geometry import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray


def nonzero_region(image: NDArray[np.generic]) -> tuple[Box, NDArray[np.bool_]]:
    """Finds the box around all voxels that are not zero in some channel.

    Source: the reference method (nnU-Net v2.8.1, cropping): non-zero in any channel, holes filled in 3D.

    Args:
        image: Shape (c, z, y, x).

    Returns:
        The smallest box, and a mask of shape (z, y, x) of the whole image. An image of zeros only gives its whole grid
        and an empty mask.
    """
    mask = np.any(image != 0, axis=0)
    if not mask.all():
        mask = ndimage.binary_fill_holes(mask)
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        z, y, x = mask.shape
        return Box(start=(0, 0, 0), stop=(z, y, x)), mask
    z, y, x = found[0]
    return Box(start=(z.start, y.start, x.start), stop=(z.stop, y.stop, x.stop)), mask
