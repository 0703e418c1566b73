"""Each change of a patch does what its row of the table says, and nothing else."""

import pytest
import torch

from autoseg.data.augmentation import (
    add_noise,
    augment,
    blur,
    change_contrast,
    change_gamma,
    exchange_labels,
    lower_resolution,
)
from autoseg.plan import AugmentationSettings

OFF = dict.fromkeys((name for name in AugmentationSettings.model_fields if name.endswith("probability")), 0.0)


def settings(**changes):
    """Settings with everything switched off but `changes`."""
    return AugmentationSettings(**{**OFF, "mirror_axes": (), **changes})


@pytest.fixture
def images():
    """A batch of four two-channel patches with different values."""
    return torch.randn(4, 2, 8, 10, 12, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels(images):
    """Labels that follow from the first channel, so that both must move together."""
    return (images[:, 0] > 0).long()


def test_nothing_changes_when_all_is_off(images, labels):
    """Probabilities of zero leave images and labels alone."""
    changed, moved = augment(images, labels, settings(), torch.Generator().manual_seed(0))
    assert torch.equal(changed, images)
    assert torch.equal(moved, labels)


def test_image_and_label_are_mirrored_together(images, labels):
    """After mirroring, the label still follows from the image."""
    changed, moved = augment(images, labels, settings(mirror_axes=(0, 1, 2)), torch.Generator().manual_seed(1))
    assert not torch.equal(changed, images)
    assert torch.equal((changed[:, 0] > 0).long(), moved)


def by_place(image, axis):
    """Labels bright voxels 1 before and 2 behind the middle along an axis, very bright ones 3."""
    places = torch.linspace(-1, 1, image.shape[axis]).reshape([-1 if this == axis else 1 for this in range(image.ndim)])
    return torch.where(image > 1, 3, torch.where(image > 0, torch.where(places < 0, 1, 2), 0))


def by_shape(image, axis):
    """Labels voxels 1 where the image rises along an axis and 2 where it falls, very bright ones 3."""
    rise = image.roll(-1, axis) - image.roll(1, axis)
    return torch.where(image > 1, 3, torch.where(rise > 0, 1, 2))


@pytest.mark.parametrize("label_one", [by_place, by_shape])
@pytest.mark.parametrize(
    ("mirror_axes", "swap_axis"), [((0, 1, 2), 0), ((0, 1, 2), 1), ((0, 1, 2), 2), ((2, 0), 2), ((1,), 1)]
)
def test_sides_stay_right_in_mirrored_patches(images, label_one, mirror_axes, swap_axis):
    """Whoever tells left from right by place or by shape gives the mirrored image the labels of training."""
    labels = torch.stack([label_one(image[0], swap_axis) for image in images])
    sided = settings(mirror_axes=mirror_axes, swap_axis=swap_axis, swapped_labels=((1, 2),))
    changed, moved = augment(images, labels, sided, torch.Generator().manual_seed(1))
    assert torch.equal(moved, torch.stack([label_one(image[0], swap_axis) for image in changed]))
    unaware = settings(mirror_axes=mirror_axes)
    same, confused = augment(images, labels, unaware, torch.Generator().manual_seed(1))
    assert torch.equal(same, changed)
    assert not torch.equal(confused, moved)


def test_sides_cost_no_random_number(images, labels):
    """A plan with exchanged labels draws what one without draws, so that only the labels differ."""
    first, second = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    changed, _ = augment(images, labels, AugmentationSettings(), first)
    other, _ = augment(images, labels, AugmentationSettings(swap_axis=1, swapped_labels=((1, 2),)), second)
    assert torch.equal(changed, other)
    assert torch.equal(first.get_state(), second.get_state())


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int64])
def test_labels_of_a_pair_are_exchanged(dtype):
    """All others stay, the mark of voxels outside the case and labels beyond the pairs too."""
    labels = torch.tensor([[-1, 0, 1, 2], [3, 4, 5, 100]], dtype=dtype)
    exchanged = exchange_labels(labels, ((1, 3), (5, 2)))
    assert exchanged.tolist() == [[-1, 0, 3, 5], [1, 4, 2, 100]]
    assert exchanged.dtype == dtype
    assert labels[0, 2] == 1
    assert torch.equal(exchange_labels(exchanged, ((1, 3), (5, 2))), labels)
    assert torch.equal(exchange_labels(labels, ()), labels)


@pytest.mark.parametrize("name", [name for name in OFF if not name.startswith(("rotation", "scaling"))])
def test_each_probability_switches_its_change(images, labels, name):
    """With probability one the image changes, stays finite, and the labels stay."""
    changed, moved = augment(images, labels, settings(**{name: 1.0}), torch.Generator().manual_seed(2))
    assert not torch.equal(changed, images)
    assert torch.isfinite(changed).all()
    assert torch.equal(moved, labels)


def test_same_seed_gives_the_same_patches(images, labels):
    """Augmentation follows from its generator alone."""
    first = augment(images, labels, AugmentationSettings(), torch.Generator().manual_seed(9))
    second = augment(images, labels, AugmentationSettings(), torch.Generator().manual_seed(9))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_changes_happen_as_often_as_their_probability_says(images, labels):
    """Noise with probability 0.3 hits about 30 of 100 patches."""
    generator = torch.Generator().manual_seed(4)
    hits = 0
    for _ in range(100):
        changed, _ = augment(images[:1], labels[:1], settings(noise_probability=0.3), generator)
        hits += not torch.equal(changed, images[:1])
    assert 15 <= hits <= 45


def test_noise_has_the_stated_deviation():
    """Noise of 0.1 has a standard deviation of 0.1."""
    noisy = add_noise(torch.zeros(1, 40, 40, 40), 0.1, torch.Generator().manual_seed(0))
    assert noisy.std().item() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 9)])
def test_blur_keeps_the_sum_and_the_centre(shape):
    """A point becomes a symmetric spot of the same mass."""
    point = torch.zeros(shape)
    point[(4,) * len(shape)] = 1.0
    spot = blur(point, 0.7)
    assert spot.sum().item() == pytest.approx(1, abs=1e-4)
    assert spot.argmax() == point.argmax()
    assert torch.allclose(spot, spot.flip(0), atol=1e-6)


def test_contrast_keeps_mean_and_range(images):
    """Values are stretched about the mean but never leave the old range."""
    image = images[0]
    changed = change_contrast(image, torch.full((2, 1, 1, 1), 1.2))
    assert changed.max() <= image.max()
    assert changed.min() >= image.min()
    softer = change_contrast(image, torch.full((2, 1, 1, 1), 0.8))
    assert torch.allclose(softer.mean(dim=(1, 2, 3)), image.mean(dim=(1, 2, 3)), atol=1e-5)
    assert torch.allclose(softer.std(dim=(1, 2, 3)), 0.8 * image.std(dim=(1, 2, 3)), rtol=1e-4)


def test_gamma_keeps_mean_and_deviation(images):
    """The histogram is bent, its mean and deviation stay."""
    image = images[0]
    changed = change_gamma(image, torch.full((2, 1, 1, 1), 1.5))
    assert torch.allclose(changed.mean(dim=(1, 2, 3)), image.mean(dim=(1, 2, 3)), atol=1e-5)
    assert torch.allclose(changed.std(dim=(1, 2, 3)), image.std(dim=(1, 2, 3)), rtol=1e-4)
    assert not torch.allclose(changed, image, atol=1e-2)


def test_gamma_of_a_constant_patch_is_that_patch():
    """No division by a range of zero."""
    constant = torch.full((1, 4, 4, 4), 3.0)
    assert torch.allclose(change_gamma(constant, torch.full((1, 1, 1, 1), 0.7)), constant)


def test_lower_resolution_keeps_shape_and_coarsens():
    """A fine checkerboard disappears, a constant stays."""
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    assert lower_resolution(board.float(), 0.5).shape == board.shape
    assert torch.equal(lower_resolution(torch.ones(7, 9, 5), 0.6), torch.ones(7, 9, 5))
    assert lower_resolution(board.float(), 0.5).std() < board.float().std()
