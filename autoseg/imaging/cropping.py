"""Cropping to the nonzero region: scanners and skull-stripping tools leave wide borders of zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

from autoseg.imaging.geometry import Box

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

    Example:
        >>> box, mask = nonzero_region(np.array([[[[0, 2, 0, 5, 0]]]]))
        >>> box.start, box.stop, mask.astype(int).tolist()
        ((0, 0, 1), (1, 1, 4), [[[0, 1, 0, 1, 0]]])
    """
    mask = np.any(image != 0, axis=0)
    box = box_around(mask)
    inside = mask[box.slices]
    if not inside.all():  # holes lie inside the box, with all that encloses them
        inside[...] = scipy.ndimage.binary_fill_holes(inside)
    return box, mask


def box_around(mask: NDArray[np.bool_]) -> Box:
    """Returns the smallest box that holds all true voxels of a mask (z, y, x); the whole grid if there are none.

    Example:
        >>> box_around(np.array([[[False, True, True]]]))
        Box(start=(0, 0, 1), stop=(1, 1, 3))
    """
    rows: NDArray[np.bool_] = np.any(mask, axis=2)
    profiles = (np.any(rows, axis=1), np.any(rows, axis=0), np.any(mask, axis=(0, 1)))
    if not profiles[0].any():
        z, y, x = mask.shape
        return Box(start=(0, 0, 0), stop=(z, y, x))
    z, y, x = (np.flatnonzero(profile).tolist() for profile in profiles)
    return Box(start=(z[0], y[0], x[0]), stop=(z[-1] + 1, y[-1] + 1, x[-1] + 1))
