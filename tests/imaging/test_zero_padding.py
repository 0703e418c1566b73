"""Padding of images that are smaller than a tile."""

import pytest
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image

from autoseg.imaging.zero_padding import pad_to_size


@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 5, 6, 7), (8, 6, 10)), ((1, 3, 3, 3), (1, 2, 3)), ((1, 1, 9, 4), (1, 12, 7)), ((1, 4, 4, 4), (7, 8, 9))],
)
def test_images_are_padded_as_by_the_reference_method(shape, size):
    """Values and place of the image are those of acvl-utils, which nnU-Net pads with."""
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected, inside = pad_nd_image(image, size, "constant", {"value": 0}, return_slicer=True)
    padded, bounds = pad_to_size(image.numpy(), size)
    assert torch.equal(torch.from_numpy(padded), expected)
    assert [part.indices(length) for part, length in zip(bounds, padded.shape[1:], strict=True)] == [
        part.indices(length) for part, length in zip(inside[1:], padded.shape[1:], strict=True)
    ]
