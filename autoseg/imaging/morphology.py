"""Morphology of masks with lengths in mm: holes are filled, and thin parts are removed by an opening.

>>> mask = np.ones((5, 5, 5), dtype=bool)
>>> mask[2, 2, 2] = False
>>> int(fill_holes(mask, dimensions=3).sum())
125
"""

import numpy as np
import scipy
from numpy.typing import NDArray

from autoseg.imaging.geometry import Vector

Mask = NDArray[np.bool_]


def fill_holes(mask: Mask, dimensions: int) -> Mask:
    """Fills the holes of a mask: voxels outside it from which no way leads to the border of the image.

    Ways lead through the faces of voxels. In a plane they lead through the edges of pixels.

    Args:
        mask: Shape (z, y, x).
        dimensions: 2 for a plane, which has one slice, 3 for a volume.

    Returns:
        A new mask of the same shape.
    """
    result = mask.copy()
    inside = _box(mask)
    if inside is not None:
        part = mask[inside]
        result[inside] = scipy.ndimage.binary_fill_holes(part[0])[np.newaxis] if dimensions == 2 else _fill(part)
    return result


def open_mask(mask: Mask, radius_mm: float, spacing_mm: Vector) -> Mask:
    """Removes what is thinner than twice a radius: keeps the voxels that some ball inside the mask reaches.

    Beyond the border of the image the mask is taken to go on, so what touches the border is not thinned there.

    Args:
        mask: Shape (z, y, x).
        radius_mm: Radius of the ball; below half the smallest spacing nothing changes.
        spacing_mm: Spacing along (z, y, x).

    Returns:
        A new mask of the same shape, a part of `mask`.

    Example: a bridge between two blocks, three voxels long, whose ends touch the blocks.
        >>> mask = np.ones((1, 5, 13), dtype=bool)
        >>> mask[:, [0, 1, 3, 4], 5:8] = False
        >>> int((mask & ~open_mask(mask, 1.0, (1.0, 1.0, 1.0))).sum())
        1
    """
    from skimage.morphology import isotropic_dilation, isotropic_erosion  # noqa: PLC0415 - it takes a while

    result = np.zeros_like(mask)
    inside = _box(mask, margin=1)
    if inside is None:
        return result
    part = mask[inside]
    if part.all():
        return mask.copy()
    core = isotropic_erosion(part, radius_mm, spacing=spacing_mm)
    if core.any():
        result[inside] = part & isotropic_dilation(core, radius_mm, spacing=spacing_mm)
    return result


def _fill(part: Mask) -> Mask:
    return np.asarray(scipy.ndimage.binary_fill_holes(part), dtype=bool)


def _box(mask: Mask, margin: int = 0) -> tuple[slice, ...] | None:
    """Returns the smallest box that holds a mask, wider by some voxels where the image goes on; None if it is empty."""
    boxes = scipy.ndimage.find_objects(mask.view(np.uint8))
    return None if not boxes else tuple(slice(max(0, edge.start - margin), edge.stop + margin) for edge in boxes[0])
