"""The region that is not zero."""

import numpy as np

from autoseg.geometry import Box
from autoseg.preprocessing.cropping import nonzero_region


def test_box_holds_every_channel() -> None:
    """The box is the smallest one around the voxels of all channels together."""
    image = np.zeros((2, 6, 7, 8), dtype=np.float32)
    image[0, 1, 2, 3] = 5
    image[1, 4, 3, 6] = -1
    box, mask = nonzero_region(image)
    assert box == Box(start=(1, 2, 3), stop=(5, 4, 7))
    assert mask.sum() == 2


def test_holes_belong_to_the_region() -> None:
    """Zeros that are enclosed on all sides are no background."""
    image = np.zeros((1, 7, 7, 7), dtype=np.float32)
    image[0, 1:6, 1:6, 1:6] = 1
    image[0, 3, 3, 3] = 0
    _, mask = nonzero_region(image)
    assert mask.sum() == 125


def test_an_image_of_zeros_is_kept_whole() -> None:
    """Nothing to crop to means the whole grid and an empty mask."""
    box, mask = nonzero_region(np.zeros((1, 2, 3, 4), dtype=np.float32))
    assert box == Box(start=(0, 0, 0), stop=(2, 3, 4))
    assert not mask.any()
