"""Mirror padding: an image continued beyond its border as its own mirror image, as often as needed.

The voxel at the border is not repeated. Example, an axis of 4 voxels, from 5 voxels before it to 4 behind it:

    index   -5 -4 -3 -2 -1  0  1  2  3  4  5  6  7
    voxel    1  2  3  2  1  0  1  2  3  2  1  0  1

Source: Ronneberger et al. 2015, "U-Net", figure 2, the overlap-tile strategy.
"""

import numpy as np
from numpy.typing import NDArray


def mirror_indices(first: int, count: int, size: int) -> NDArray[np.intp]:
    """Returns the voxels, 0 to `size` - 1, that are seen at `count` indices from `first` on.

    An axis of one voxel repeats it.

    Args:
        first: First index, negative before the image.
        count: Number of indices.
        size: Number of voxels of the image along this axis.

    Example:
        >>> mirror_indices(-5, 13, 4).tolist()
        [1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    """
    indices = np.arange(first, first + count)
    if size == 1:
        return np.zeros_like(indices)
    phase = indices % (2 * (size - 1))  # one period is the image and its mirror image
    return np.minimum(phase, 2 * (size - 1) - phase)
