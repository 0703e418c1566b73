"""Borders between neighbouring components: how near a voxel is to two of them at once."""

from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

REACH = 4.0
"""Sum of both distances, in standard deviations, beyond which a weight is 0. Decision: it would be below 0.0004."""


def number_components(masks: list[NDArray[np.bool_]] | NDArray[np.bool_]) -> NDArray[np.int32]:
    """Numbers the connected components of masks that share no voxel, from 1; 0 is outside of all.

    Voxels of a mask that touch by a face, an edge or a corner are connected; those of different masks never are.

    Example:
        >>> number_components([np.array([1, 1, 0, 0, 1], bool), np.array([0, 0, 1, 0, 0], bool)]).tolist()
        [1, 1, 3, 0, 2]

    Args:
        masks: Masks of shape (y, x) or (z, y, x).
    """
    numbers = np.zeros(masks[0].shape, dtype=np.int32)
    for mask in masks:
        components, _ = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
        numbers = np.where(mask, components + numbers.max(), numbers)
    return numbers.astype(np.int32)


def weigh_borders(components: NDArray[np.int32], sigma_voxels: float) -> NDArray[np.float32]:
    """Returns exp(-(d1 + d2)^2 / (2 sigma^2)) of the distances to the nearest and second nearest component.

    Source: Ronneberger et al. 2015, U-Net, equation 2, whose weight is 10 times this. Decision: distances are those to
    the voxels of a component, in voxels, so a voxel inside one has the distance 0 to it, and counts more as well if
    another component is near.

    Example: in a gap of two voxels between components, d1 + d2 is 3; next to it, inside a component, it is 0 + 3.
        >>> weigh_borders(np.array([1, 0, 0, 2], np.int32), 3.0).astype(float).round(3).tolist()
        [0.607, 0.607, 0.607, 0.607]

    Args:
        components: Number of the component of each voxel, from 1; 0 outside of all. Shape (y, x) or (z, y, x).
        sigma_voxels: Standard deviation in voxels.

    Returns:
        Values of 0 to 1, of the same shape; 0 if there are fewer than two components.
    """
    weights = np.zeros(components.shape, dtype=np.float32)
    if components.max(initial=0) < 2:
        return weights
    reach = REACH * sigma_voxels
    first, places = ndimage.distance_transform_edt(components == 0, return_indices=True)
    nearest = np.where(first <= reach / 2, components[tuple(places)], 0)
    boxes = ndimage.find_objects(nearest)
    for number in range(1, len(boxes) + 1):
        wide = tuple(slice(max(0, edge.start - ceil(reach)), edge.stop + ceil(reach)) for edge in boxes[number - 1])
        others = (components[wide] != 0) & (components[wide] != number)
        if others.any():
            second, here = ndimage.distance_transform_edt(~others), nearest[wide] == number
            total = (first[wide] + second)[here]
            weights[wide][here] = np.where(total <= reach, np.exp(-0.5 * (total / sigma_voxels) ** 2), 0.0)
    return weights
