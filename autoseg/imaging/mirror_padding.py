"""Images that go on beyond their border as their own mirror image, as often as it takes.

The voxel at the border is not repeated. Example, an axis of 4 voxels, seen from 5 voxels before it to 4 behind it:

    place   -5 -4 -3 -2 -1  0  1  2  3  4  5  6  7
    voxel    1  2  3  2  1  0  1  2  3  2  1  0  1

Source: Ronneberger et al. 2015, "U-Net", figure 2, the overlap-tile strategy.
"""

import numpy as np
from numpy.typing import NDArray


def mirror_indices(first: int, count: int, size: int) -> NDArray[np.intp]:
    """The voxels, from 0 to `size` - 1, that are seen at `count` places from `first` on; those seen lie side by side.

    An axis of one voxel shows it everywhere.
    """
    places = np.arange(first, first + count)
    if size == 1:
        return np.zeros_like(places)
    there_and_back = places % (2 * (size - 1))
    return np.minimum(there_and_back, 2 * (size - 1) - there_and_back)
