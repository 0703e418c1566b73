"""Each change of a patch does what its row of the table says, and nothing else."""

from itertools import product

import numpy as np
import pytest
import torch
from changed_patches import OFF, only

from autoseg.dataloading.augmentation import (
    augment,
    blur,
    change_contrast,
    change_gamma,
    clear_outside,
    gaussian_kernel,
    kernel_radius,
    lower_resolution,
    make_noise,
)
from autoseg.dataloading.augmentation_parameters import AugmentationParameters, draw_parameters
from autoseg.dataloading.label_swaps import swap_labels, swap_table
from autoseg.imaging.targets import OUTSIDE
from autoseg.planning.settings import AugmentationSettings

UNTURNED = [name for name in OFF if not name.startswith(("rotation", "scaling", "deformation"))]


@pytest.fixture
def images():
    """A batch of four two-channel patches with different values."""
    return torch.randn(4, 2, 8, 10, 12, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels(images):
    """Returns labels that are determined by the first channel, so that both must move together."""
    return (images[:, 0] > 0).long()


def augmented(images, labels, settings, seed):
    """Returns new images and labels, augmented with the random numbers of a seed."""
    random = np.random.default_rng(seed)
    draws = []
    for number in range(len(images)):
        others = [other for other in range(len(images)) if other != number]
        draws.append(
            draw_parameters(settings, images.shape[2:], channels=images.shape[1], others=others, random=random)
        )
    changed, moved = images.clone(), labels.clone()
    augment(changed, moved, draws, settings)
    return changed, moved


def test_nothing_changes_when_all_is_off(images, labels):
    """Probabilities of zero leave images and labels alone."""
    changed, moved = augmented(images, labels, only(), 0)
    assert torch.equal(changed, images)
    assert torch.equal(moved, labels)


def test_image_and_label_are_mirrored_together(images, labels):
    """After mirroring, the label still follows from the image."""
    changed, moved = augmented(images, labels, only(mirror_axes=(0, 1, 2)), 1)
    assert not torch.equal(changed, images)
    assert torch.equal((changed[:, 0] > 0).long(), moved)


def by_place(image, axis):
    """Labels bright voxels 1 before and 2 behind the middle of an axis, and very bright ones 3."""
    places = torch.linspace(-1, 1, image.shape[axis]).reshape([-1 if this == axis else 1 for this in range(image.ndim)])
    return torch.where(image > 1, 3, torch.where(image > 0, torch.where(places < 0, 1, 2), 0))


def by_shape(image, axis):
    """Labels voxels 1 where the image rises along an axis and 2 where it falls, and very bright ones 3."""
    rise = image.roll(-1, axis) - image.roll(1, axis)
    return torch.where(image > 1, 3, torch.where(rise > 0, 1, 2))


@pytest.mark.parametrize("label_one", [by_place, by_shape])
@pytest.mark.parametrize(
    ("mirror_axes", "swap_axis"), [((0, 1, 2), 0), ((0, 1, 2), 1), ((0, 1, 2), 2), ((2, 0), 2), ((1,), 1)]
)
def test_sides_stay_right_in_mirrored_patches(images, label_one, mirror_axes, swap_axis):
    """Labels by position and labels by shape are those of the mirrored image."""
    labels = torch.stack([label_one(image[0], swap_axis) for image in images])
    sided = only(mirror_axes=mirror_axes, swap_axis=swap_axis, swapped_labels=((1, 2),))
    changed, moved = augmented(images, labels, sided, 1)
    assert torch.equal(moved, torch.stack([label_one(image[0], swap_axis) for image in changed]))
    same, confused = augmented(images, labels, only(mirror_axes=mirror_axes), 1)
    assert torch.equal(same, changed)
    assert not torch.equal(confused, moved)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int64])
def test_labels_of_a_pair_are_exchanged(dtype):
    """All other labels stay, also the mark of voxels outside the case and labels beyond the pairs."""
    labels = torch.tensor([[-1, 0, 1, 2], [3, 4, 5, 100]], dtype=dtype)
    partners = swap_table(((1, 3), (5, 2)))
    exchanged = swap_labels(labels, partners)
    assert exchanged.tolist() == [[-1, 0, 3, 5], [1, 4, 2, 100]]
    assert exchanged.dtype == dtype
    assert labels[0, 2] == 1
    assert torch.equal(swap_labels(exchanged, partners), labels)
    assert torch.equal(swap_labels(labels, swap_table(())), labels)


@pytest.mark.parametrize("name", UNTURNED)
def test_each_probability_switches_its_change(images, labels, name):
    """With probability one the image changes, stays finite, and the labels stay."""
    changed, moved = augmented(images, labels, only(**{name: 1.0}), 2)
    assert not torch.equal(changed, images)
    assert torch.isfinite(changed).all()
    assert torch.equal(moved, labels)


def test_same_seed_gives_the_same_patches(images, labels):
    """Augmentation depends on its generator alone."""
    first, second = (augmented(images, labels, AugmentationSettings(), 9) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_rows_are_applied_in_the_order_of_the_table(images):
    """The changes equal noise, blur, brightness, contrast, resolution, inverted gamma and gamma, applied by hand."""
    two = np.array([1.2, 0.8], np.float32)
    sigmas, resolution = np.full((2, 3), 0.7, np.float32), np.array([0.6, 1.0], np.float32)
    draw = AugmentationParameters(
        noise_std=0.05,
        noise_seed=7,
        blur_sigmas=sigmas,
        brightness=two,
        contrast=two,
        resolution=resolution,
        gamma_inverted=two,
        gamma=two,
        mirrored=(1,),
    )
    expected, column = images[0].clone(), torch.from_numpy(two).reshape(2, 1, 1, 1)
    expected += make_noise(draw, expected.shape)
    blur(expected, sigmas)
    change_contrast(expected.mul_(column), column)
    lower_resolution(expected, resolution, (0, 1, 2))
    expected = -change_gamma(-expected, column)
    change_gamma(expected, column)
    changed, label = images[:1].clone(), torch.zeros(1, 8, 10, 12)
    augment(changed, label, [draw], only(mirror_axes=(1,)))
    assert torch.allclose(changed[0], expected.flip(2), atol=1e-5)


def test_noise_has_the_stated_deviation():
    """The noise has a standard deviation of 0.1, depends on its seed, and is zero if none was drawn."""
    noise = make_noise(AugmentationParameters(noise_std=0.1, noise_seed=3), (1, 40, 40, 40))
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert torch.equal(noise, make_noise(AugmentationParameters(noise_std=0.1, noise_seed=3), (1, 40, 40, 40)))
    assert not make_noise(AugmentationParameters(noise_seed=3), (1, 4, 4, 4)).any()


@pytest.mark.parametrize(("sigma", "radius"), [(0.1, 1), (0.5, 1), (0.7, 2), (0.9, 2), (1.0, 3), (2.0, 6)])
def test_kernels_are_as_wide_as_those_of_the_reference(sigma, radius):
    """The widths and weights are those that nnU-Net v2.8.1 shows when it blurs a point."""
    assert kernel_radius(sigma) == radius
    golden = {0.7: [0.0096, 0.2055, 0.5697, 0.2055, 0.0096], 1.0: [0.0044, 0.054, 0.242, 0.3991]}
    kernel = gaussian_kernel(sigma)
    assert sum(kernel) == pytest.approx(1)
    assert kernel[: len(golden.get(sigma, []))] == pytest.approx(golden.get(sigma, []), abs=3e-4)


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 9)])
def test_blur_keeps_the_sum_and_the_centre(shape):
    """A point becomes a spot of the same sum, wider along the axis with the larger standard deviation."""
    point = torch.zeros(1, *shape)
    point[(0, *(4,) * len(shape))] = 1.0
    centre = point.argmax()
    sigmas = np.full((1, len(shape)), 0.5, np.float32)
    sigmas[0, 0] = 1.0
    blur(point, sigmas)
    assert point.sum().item() == pytest.approx(1, abs=1e-4)
    assert point.argmax() == centre
    assert torch.allclose(point, point.flip(1), atol=1e-6)
    assert point.sum(tuple(range(2, point.ndim)))[0, 2] > 0.05 > point.movedim(1, -1).sum((0, -1)).flatten()[2]


def test_blur_leaves_channels_of_zero_sigma_and_constants(images):
    """A constant patch stays constant up to its borders."""
    blurred = images[0].clone()
    blur(blurred, np.array([[0, 0, 0], [0.7, 0.7, 0.7]], np.float32))
    assert torch.equal(blurred[0], images[0, 0])
    assert not torch.equal(blurred[1], images[0, 1])
    constant = torch.full((1, 2, 5, 3), 4.0)  # an axis shorter than the kernel
    blur(constant, np.full((1, 3), 1.0, np.float32))
    assert torch.allclose(constant, torch.full((1, 2, 5, 3), 4.0))


def test_contrast_keeps_mean_and_range(images):
    """Values are stretched about the mean, and never leave the old range."""
    image = images[0]
    changed = change_contrast(image.clone(), torch.full((2, 1, 1, 1), 1.2))
    assert changed.max() <= image.max()
    assert changed.min() >= image.min()
    softer = change_contrast(image.clone(), torch.full((2, 1, 1, 1), 0.8))
    assert torch.allclose(softer.mean(dim=(1, 2, 3)), image.mean(dim=(1, 2, 3)), atol=1e-5)
    assert torch.allclose(softer.std(dim=(1, 2, 3)), 0.8 * image.std(dim=(1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_gamma_keeps_mean_and_deviation(images, exponent):
    """The power changes the histogram, but neither mean nor standard deviation."""
    image = images[0]
    changed = change_gamma(image.clone(), torch.full((2, 1, 1, 1), exponent))
    assert torch.allclose(changed.mean(dim=(1, 2, 3)), image.mean(dim=(1, 2, 3)), atol=1e-5)
    assert torch.allclose(changed.std(dim=(1, 2, 3)), image.std(dim=(1, 2, 3)), rtol=1e-4)
    for one, other in zip(image.flatten(1), changed.flatten(1), strict=True):
        shares = [(values - values.min()) / (values.max() - values.min()) for values in (one, other)]
        assert torch.allclose(shares[0] ** exponent, shares[1], atol=1e-4)


def test_gamma_of_a_constant_patch_is_that_patch():
    """Nothing is divided by a range of zero."""
    constant = torch.full((1, 4, 4, 4), 3.0)
    assert torch.allclose(change_gamma(constant.clone(), torch.full((1, 1, 1, 1), 0.7)), constant)


def test_lower_resolution_equals_that_of_the_reference():
    """The ramp of ten voxels changes as in nnU-Net v2.8.1, at factors of 0.5 and 0.73."""
    coarse = torch.arange(10.0).reshape(1, 10, 1, 1).expand(1, 10, 4, 4).clone()
    golden = {
        0.5: [1.0, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.0],
        0.73: [1.0, 1.825, 2.75, 3.45, 4.8, 5.85, 6.55, 7.25, 8.175, 9.0],
    }
    for factor, expected in golden.items():
        lower_resolution(coarse, np.array([factor], np.float32), (0, 1, 2))
        assert coarse[0, :, 1, 2].tolist() == pytest.approx(expected, abs=1e-5)


def test_lower_resolution_leaves_some_axes_and_channels():
    """Thick slices are not mixed, and a channel with a factor of one stays as it is."""
    image = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    coarse = image.clone()
    lower_resolution(coarse, np.array([0.5, 1.0], np.float32), (1, 2))
    assert torch.equal(coarse[1], image[1])
    one_by_one = image[:1].clone()
    for plane in one_by_one.unbind(1):
        lower_resolution(plane, np.array([0.5], np.float32), (0, 1))
    assert torch.allclose(coarse[0], one_by_one[0], atol=1e-6)
    assert not torch.equal(coarse[0], image[0])


def test_thick_slices_are_known_by_the_turns_of_the_plan(images, labels):
    """A volume that is rotated about its first axis only keeps the resolution along it."""
    by_slices = images[:, :, :1].expand_as(images)
    changed, _ = augmented(by_slices, labels, only(low_resolution_probability=1.0, rotation_axes=(0,)), 0)
    assert torch.allclose(changed, changed[:, :, :1].expand_as(changed), atol=1e-6)
    assert not torch.equal(changed, by_slices)
    along = images[:, :, :, :1, :1].expand_as(images)
    changed, _ = augmented(along, labels, only(low_resolution_probability=1.0, rotation_axes=(0,)), 0)
    assert torch.allclose(changed, along, atol=1e-6)
    changed, _ = augmented(along, labels, only(low_resolution_probability=1.0), 0)
    assert not torch.allclose(changed, along, atol=1e-2)


def test_channels_that_are_zero_outside_stay_so(images):
    """The other channels keep their values outside."""
    labels = torch.zeros(4, 8, 10, 12)
    labels[:, :3] = OUTSIDE
    cleared = images.clone()
    clear_outside(cleared, labels, [1])
    assert not cleared[:, 1, :3].any()
    assert torch.equal(cleared[:, 1, 3:], images[:, 1, 3:])
    assert torch.equal(cleared[:, 0], images[:, 0])


def test_patches_take_on_the_intensities_of_others_as_they_were(images, labels):
    """Two patches swap their intensities, because both match the patches before any change."""
    bright = images.clone()
    bright[1] += 10
    draws = [
        AugmentationParameters(partner=1),
        AugmentationParameters(partner=0),
        AugmentationParameters(),
        AugmentationParameters(),
    ]
    changed, moved = bright.clone(), labels.clone()
    augment(changed, moved, draws, only())
    for (one, other), channel in product(((0, 1), (1, 0)), range(2)):
        assert changed[one, channel].mean().item() == pytest.approx(bright[other, channel].mean().item(), abs=0.1)
    assert torch.equal(changed[2:], bright[2:])
