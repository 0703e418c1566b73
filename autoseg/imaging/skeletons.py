"""Skeletons: the centre lines of vessels and of other thin structures."""

import numpy as np
import scipy
from numpy.typing import NDArray


def find_skeleton(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thins a mask to lines of one voxel that keep its connections, its loops and its branches.

    Source: Lee et al. 1994 for volumes, Zhang and Suen 1984 for planes, by scikit-image. A volume with an axis of one
    voxel is a plane. Thick structures shrink to lines as well, those with cavities to surfaces around these.

    Args:
        mask: Shape (y, x) or (z, y, x).

    Returns:
        A new mask of the same shape.

    Example:
        >>> mask = np.zeros((5, 9), dtype=bool)
        >>> mask[1:4, 1:8] = True
        >>> find_skeleton(mask).astype(int)[2].tolist()
        [0, 1, 1, 1, 1, 1, 0, 0, 0]
    """
    from skimage.morphology import skeletonize  # noqa: PLC0415 - it takes a while

    skeleton, boxes = np.zeros_like(mask), scipy.ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return skeleton
    box = tuple(boxes[0])
    axes = tuple(axis for axis, size in enumerate(mask.shape) if size > 1)
    inside = mask[box].reshape([mask[box].shape[axis] for axis in axes])
    thinned = skeletonize(inside) if len(axes) > 1 else inside  # a row of voxels is a line already
    skeleton[box] = (thinned > 0).reshape(mask[box].shape)
    return skeleton


def find_tube(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns the skeleton of a mask, thickened by a voxel in all directions, inside the mask.

    Source: Kirchhoff et al. 2024, skeleton recall loss. Decision: it stays inside its structure, so that it asks for
    nothing that the labels do not hold.

    Args:
        mask: Shape (y, x) or (z, y, x).

    Returns:
        A new mask of the same shape.
    """
    skeleton = find_skeleton(mask)
    return mask & scipy.ndimage.binary_dilation(skeleton, structure=np.ones((3,) * mask.ndim, dtype=bool))
