"""A fitted kernel answers an image that does not change along the fitted axis as the old one did."""

import pytest
import torch
from torch.nn import functional as F

from autoseg.training.kernel_fitting import describe_fit, fit_kernel


def answer(kernel, image):
    """Returns the middle of a convolution that keeps the size, where no border is seen."""
    padding = tuple(size // 2 for size in kernel.shape[2:])
    if kernel.ndim == 4:
        return F.conv2d(image, kernel, padding=padding)[..., 4:-4, 4:-4]
    return F.conv3d(image, kernel, padding=padding)[..., 4:-4, 4:-4, 4:-4]


def drawn(*shape):
    """Returns random numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((3, 3, 3), (1, 3, 3)),
        ((1, 3, 3), (3, 3, 3)),
        ((3, 3, 3), (5, 3, 3)),
        ((1, 3, 3), (5, 5, 5)),
        ((3, 3), (3, 3, 3)),
        ((3, 3, 3), (3, 3)),
        ((3, 3), (1, 5, 5)),
    ],
)
def test_answers_stay_where_the_image_is_constant(old, new):
    """The image has the same values along its first axis, and others along the last two."""
    plane = drawn(1, 2, 12, 12)
    volume = plane[:, :, None].expand(1, 2, 12, 12, 12)
    kernel = drawn(4, 2, *old)
    fitted = fit_kernel(kernel, (4, 2, *new))
    assert fitted.shape == (4, 2, *new)
    before = answer(kernel, plane if len(old) == 2 else volume)
    after = answer(fitted, plane if len(new) == 2 else volume)
    middle = [value if value.ndim == 4 else value[:, :, 0] for value in (before, after)]
    torch.testing.assert_close(middle[0], middle[1])


def test_border_of_zeros_answers_every_image_as_before():
    """That holds for images that change along all axes."""
    image, kernel = drawn(1, 2, 12, 12, 12), drawn(4, 2, 3, 3, 3)
    torch.testing.assert_close(answer(fit_kernel(kernel, (4, 2, 5, 5, 5)), image), answer(kernel, image))


def test_channels_of_the_image_start_as_their_mean():
    """The sum of the answers to equal channels stays; channels between layers are never fitted."""
    kernel = drawn(4, 1, 3, 3, 3)
    fitted = fit_kernel(kernel, (4, 4, 1, 3, 3), reads_image=True)
    torch.testing.assert_close(fitted.sum(1), kernel.sum((1, 2))[:, None])
    assert fit_kernel(kernel, (4, 4, 1, 3, 3)) is None
    assert describe_fit(kernel.shape, fitted.shape) == "1 channel becomes 4, the kernel 3x3x3 becomes 1x3x3"
    assert describe_fit((4, 2, 3, 3), (4, 1, 3, 3)) == "2 channels become 1"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((4, 2, 5, 5, 5), (4, 2, 3, 3, 3)),
        ((4, 2, 3, 3, 3), (8, 2, 3, 3, 3)),
        ((4, 2, 2, 2), (4, 2, 3, 3)),
        ((4, 2), (4, 2, 3, 3)),
        ((4,), (4, 2, 3, 3, 3)),
    ],
)
def test_other_shapes_are_not_fitted(old, new):
    """Smaller kernels, other features, even sizes beside odd ones, and what is no kernel."""
    assert fit_kernel(drawn(*old), new) is None
