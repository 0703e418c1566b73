"""Both ways of changing patches follow the same table: what is measured on the patches has its distribution.

The two ways get different seeds, so that nothing but the distributions can agree.
"""

import numpy as np
import pytest
import torch
from changed_patches import WAYS, change_often, make_case, only
from scipy import stats

LEAST = 0.001
"""The p-value below which two distributions count as different; seeds are fixed, so a test passes always or never."""

SEEDS = dict(zip(WAYS, (1, 2), strict=True))
VOLUME = (8, 9, 10)


@pytest.fixture(scope="module")
def noisy():
    """Returns a case of normally distributed values, as large as the patch."""
    return make_case(np.random.default_rng(0).normal(size=(1, *VOLUME)))


def measure(case, settings, take, *, patch=None, count=300):
    """Returns the results of `take` for the patches of both implementations, one array for each."""
    size = case.shape if patch is None else patch
    return [
        np.array([take(image) for image in change_often(way, case, size, settings, count=count, seed=seed)[0]])
        for way, seed in SEEDS.items()
    ]


def assert_alike(found, expected=None):
    """Asserts that a sample has a known distribution, or that of another sample."""
    assert stats.ks_2samp(*found).pvalue > LEAST
    assert all(len(np.unique(sample)) > 1 for sample in found)
    for sample in found if expected is not None else ():
        assert stats.kstest(sample, expected.cdf).pvalue > LEAST


class Halves:
    """A distribution that is uniform below one and above one, with half of the draws on each side."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def cdf(self, values):
        """Returns the share of the draws up to some values."""
        below = stats.uniform(self.low, 1 - self.low).cdf(values)
        return 0.5 * below + 0.5 * stats.uniform(1, self.high - 1).cdf(values)


def test_brightness(noisy):
    """The ratio to the unchanged patch has the distribution of the factor."""
    before = torch.from_numpy(noisy.image)
    at = before.abs().argmax()
    found = measure(
        noisy, only(brightness_probability=1.0), lambda image: float(image.flatten()[at] / before.flatten()[at])
    )
    assert_alike(found, Halves(0.75, 1.25))


def test_contrast(noisy):
    """The slope of the values about the mean has the distribution of the factor, where none is clipped."""
    before = torch.from_numpy(noisy.image)
    inner = (before - before.mean()).abs() < 1
    inner &= (before - before.mean()).abs() > 0.1

    def slope(image):
        return float(((image - before.mean()) / (before - before.mean()))[inner].median())

    assert_alike(measure(noisy, only(contrast_probability=1.0), slope), Halves(0.75, 1.25))


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma(noisy, inverted):
    """The exponent that relates the scaled values before and after has the distribution of the setting."""
    before = torch.from_numpy(noisy.image)
    name = "gamma_inverted_probability" if inverted else "gamma_probability"

    def exponent(image):
        shares = []
        for values in (before, image):
            share = (values - values.min()) / (values.max() - values.min())
            shares.append(1 - share if inverted else share)
        known = (shares[0] > 0.2) & (shares[0] < 0.8)
        return float((shares[1][known].log() / shares[0][known].log()).median())

    assert_alike(measure(noisy, only(**{name: 1.0}), exponent), Halves(0.7, 1.5))


def test_noise(noisy):
    """The standard deviation is uniform from zero to the stated one, and the values are normally distributed."""
    before = torch.from_numpy(noisy.image)
    found = measure(noisy, only(noise_probability=1.0), lambda image: float((image - before).std()))
    assert_alike(found, stats.uniform(0, 0.1))
    for way, seed in SEEDS.items():
        images, _ = change_often(way, noisy, VOLUME, only(noise_probability=1.0), count=50, seed=seed)
        scaled = (images - before) / (images - before).flatten(1).std(dim=1).reshape(-1, 1, 1, 1, 1)
        assert stats.kstest(scaled.flatten().numpy()[::7], stats.norm.cdf).pvalue > LEAST


def test_blur():
    """A point becomes as wide as the setting says along each axis, in half of the patches."""
    point = np.zeros((1, 11, 11, 11))
    point[0, 5, 5, 5] = 1
    places = torch.arange(-5.0, 6.0)

    def width(axis):
        return lambda image: float((image[0].movedim(axis, 0).flatten(1).sum(1) * places**2).sum())

    for axis in range(3):
        found = measure(make_case(point), only(blur_probability=1.0), width(axis))
        assert all(stats.binomtest(int((sample > 1e-6).sum()), 300, 0.5).pvalue > LEAST for sample in found)
        assert_alike([sample[sample > 1e-6] for sample in found])
        assert all(0.2 < sample[sample > 1e-6].min() < 0.3 for sample in found)
        assert all(0.85 < sample.max() < 1.0 for sample in found)


def test_low_resolution(noisy):
    """As much detail is lost as the setting says, in half of the patches."""
    before = torch.from_numpy(noisy.image)
    found = measure(noisy, only(low_resolution_probability=1.0), lambda image: float((image - before).std()))
    assert all(stats.binomtest(int((sample > 0).sum()), 300, 0.5).pvalue > 1e-4 for sample in found)
    assert_alike(found)


def test_mirroring(noisy):
    """Each axis is flipped in half of the patches, independently of the others."""
    before = torch.from_numpy(noisy.image)
    settings = only(mirror_axes=(0, 1, 2))
    for way, seed in SEEDS.items():
        images, _ = change_often(way, noisy, VOLUME, settings, seed=seed)
        kinds = [
            sum(
                torch.equal(image, before.flip([axis + 1 for axis in range(3) if kind >> axis & 1])) for image in images
            )
            for kind in range(8)
        ]
        assert sum(kinds) == 300
        assert stats.chisquare(kinds).pvalue > LEAST


def test_histogram_matching():
    """Each patch takes on the distributions of all other patches equally often."""
    random = np.random.default_rng(0)
    case = make_case(random.normal(size=(1, 12, 12, 12)))
    settings = only(histogram_matching_probability=1.0, brightness_probability=1.0)
    found = measure(case, settings, lambda image: float(image.std()), count=100)
    assert_alike(found)


def blob(shape, place, width=1.5):
    """Returns an image of a soft ball around a voxel."""
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    distance = sum((axis - at) ** 2 for axis, at in zip(axes, place, strict=True))
    return np.exp(-distance / (2 * width**2))[np.newaxis]


def centre(image):
    """Returns the centre of mass of an image (1, *patch), in voxels from the middle."""
    weights = image[0] / image[0].sum()
    places = [torch.arange(size) - (size - 1) / 2 for size in weights.shape]
    return np.array(
        [float((weights.movedim(axis, 0).flatten(1).sum(1) * place).sum()) for axis, place in enumerate(places)]
    )


@pytest.mark.parametrize("flat", [True, False])
def test_rotation_within_planes(flat):
    """The angle by which a blob is rotated about the middle is uniform, in planes and in stacks of planes."""
    plane = blob((33, 33), (16, 24))[0]
    case = make_case(np.broadcast_to(plane, (1, 3, 33, 33)))
    settings = only(rotation_probability=1.0, rotation_axes=(0,))

    def angle(image):
        y, x = centre(image if image.ndim == 3 else image[:, 1])
        return float(np.degrees(np.arctan2(y, x)))

    found = measure(case, settings, angle, patch=(3, 33, 33) if flat else (33, 33))
    assert_alike(found, stats.uniform(-30, 60))


def test_rotation_in_space():
    """The blob moves as three successive rotations move it, and keeps its distance from the middle."""
    case = make_case(blob((23, 23, 23), (16, 14, 7), width=1.0))
    settings = only(rotation_probability=1.0)
    found = measure(case, settings, centre, count=200)
    for axis in range(3):
        assert_alike([sample[:, axis] for sample in found])
    for sample in found:
        assert np.linalg.norm(sample, axis=1) == pytest.approx(np.linalg.norm([5, 3, -4]), abs=0.1)
        assert np.ptp(sample, axis=0).min() > 3


@pytest.mark.parametrize("flat", [True, False])
def test_scaling(flat):
    """The distance of a blob from the middle grows by a uniform factor, but not across thick slices."""
    case = make_case(blob((15, 23, 23), (9, 15, 8), width=1.0))
    settings = only(scaling_probability=1.0, rotation_axes=(0,) if flat else (0, 1, 2))
    found = measure(case, settings, centre, count=200)
    for axis, offset in enumerate((2, 4, -3)):
        factors = [sample[:, axis] / offset for sample in found]
        if flat and axis == 0:
            assert all(np.allclose(sample, 1, atol=1e-3) for sample in factors)
        else:
            assert_alike(factors, stats.uniform(0.7, 0.7))


def test_deformation():
    """The displacement of a grid point in the middle of a patch is normally distributed along each axis."""
    places = np.stack(np.meshgrid(*[np.arange(-10.0, 11.0)] * 3, indexing="ij"))
    settings = only(deformation_probability=1.0, deformation_spacing_voxels=10.0, deformation_std_voxels=2.0)
    found = measure(make_case(places), settings, lambda image: image[:, 10, 10, 10].numpy(), count=200)
    for axis in range(3):
        assert_alike([sample[:, axis] for sample in found], stats.norm(0, 2))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("patch", [(20, 22, 24), (22, 24)])
def test_image_and_labels_stay_aligned(way, patch):
    """An image that equals its label map still does after any warping and flipping, but for the edges of voxels."""
    label = np.zeros((24, 26, 28), np.int8)
    label[6:16, 5:14, 8:20] = 1
    case = make_case(label[np.newaxis].astype(float), label)
    settings = only(
        rotation_probability=0.7,
        rotation_axes=(0, 1, 2) if len(patch) == 3 else (0,),
        scaling_probability=0.7,
        deformation_probability=0.7,
        deformation_std_voxels=1.0,
        mirror_axes=tuple(range(len(patch))),
    )
    images, labels = change_often(way, case, patch, settings, count=50)
    sure = (images[:, 0] - 0.5).abs() > 1e-3
    assert sure.float().mean() > 0.99
    assert torch.equal((images[:, 0] > 0.5)[sure], (labels == 1)[sure])
    assert len({float(one.sum()) for one in labels}) > 20


@pytest.mark.parametrize("way", WAYS)
def test_missing_channels_are_zero_after_all_else(way):
    """Noise and the other changes of intensity leave nothing in them, and the other channels stay as they are."""
    image = np.random.default_rng(0).normal(5, 1, (3, 8, 8, 8))
    always = only(missing_channels_probability=1.0, noise_probability=1.0, noise_std=1.0, brightness_probability=1.0)
    images, _ = change_often(way, make_case(image), (8, 8, 8), always, count=100)
    is_missing = (images == 0).flatten(2).all(dim=2)
    assert set(is_missing.sum(dim=1).tolist()) == {1, 2}
    assert (images[~is_missing] != 0).all()
