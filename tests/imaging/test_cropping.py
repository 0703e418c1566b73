"""The nonzero region of an image."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.imaging.cropping import nonzero_region
from autoseg.imaging.geometry import Box


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


@given(st.tuples(*[st.integers(1, 7)] * 3), st.floats(0, 1), st.integers(1, 2), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_region_is_that_of_the_plain_definition(shape: tuple[int, ...], share: float, channels: int, seed: int) -> None:
    """Non-zero in any channel, holes filled over the whole image, and the box around what that gives."""
    random = np.random.default_rng(seed)
    image = (random.random((channels, *shape)) < share).astype(np.float32)
    wanted = ndimage.binary_fill_holes((image != 0).any(axis=0))
    box, mask = nonzero_region(image)
    np.testing.assert_array_equal(mask, wanted)
    found = np.argwhere(wanted)
    low, high = (found.min(axis=0), found.max(axis=0) + 1) if len(found) else (np.zeros(3), np.array(shape))
    assert box == Box(start=tuple(int(edge) for edge in low), stop=tuple(int(edge) for edge in high))
