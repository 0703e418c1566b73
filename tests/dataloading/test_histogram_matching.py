"""A matched patch has the distribution of the other one and the order of its own values."""

import pytest
import torch

from autoseg.dataloading.histogram_matching import LEVELS, match_histograms


def everywhere(channels):
    """Returns a mask of all voxels."""
    return torch.ones_like(channels, dtype=torch.bool)


def noise(seed, shape=(2, 20, 20, 20)):
    """Returns normally distributed values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 20, 20, 20), (2, 60, 70), (2, 96, 96, 96)])
def test_distribution_is_that_of_the_other(shape):
    """Quantiles agree within one step of the distribution, in small and in large patches."""
    channels, others = noise(0, shape), noise(1, shape).exp()
    matched = match_histograms(channels, others, everywhere(channels), everywhere(others))
    shares = torch.linspace(0.02, 0.98, 25)
    for one, other in zip(matched, others, strict=True):
        values = [tensor.flatten()[:200_000].quantile(shares) for tensor in (one, other)]
        assert torch.allclose(*values, rtol=0.06)


def test_order_of_values_stays():
    """A voxel that was brighter is not darker afterwards."""
    channels, others = noise(0), noise(1) ** 3
    matched = match_histograms(channels, others, everywhere(channels), everywhere(others))
    order = channels.flatten(1).argsort(dim=1)
    assert (matched.flatten(1).gather(1, order).diff(dim=1) >= 0).all()


def test_patch_that_is_matched_with_itself_stays():
    """The values agree up to a fraction of a step."""
    channels = noise(2)
    matched = match_histograms(channels, channels, everywhere(channels), everywhere(channels))
    inner = channels.abs() < 2
    assert (matched - channels).abs()[inner].max() < 5 / LEVELS


def test_equal_values_stay_equal():
    """A background of zeros becomes one value, not a pattern."""
    channels, others = noise(0), noise(1) + 5
    channels[:, :10] = 0.0
    matched = match_histograms(channels, others, everywhere(channels), everywhere(others))
    assert (matched[:, :10] == matched[:, :1, :1, :1]).all()
    assert matched[0, 0, 0, 0].item() == pytest.approx(5, abs=0.5)


def test_voxels_outside_neither_count_nor_change():
    """Padding is not part of a scan."""
    channels, others = noise(0), noise(1) + 7
    inside, others_inside = everywhere(channels), everywhere(others)
    inside[:, 12:] = False
    others_inside[:, :5] = False
    channels[:, 12:], others[:, :5] = 0.0, 0.0
    matched = match_histograms(channels, others, inside, others_inside)
    assert not matched[:, 12:].any()
    assert matched[:, :12].mean().item() == pytest.approx(7, abs=0.1)
    assert matched[:, :12].min() > 2


@pytest.mark.parametrize("which", [0, 1])
def test_patch_without_a_scan_changes_nothing(which):
    """Neither such a patch nor its partner changes, and constant patches cause no error."""
    channels, others = noise(0), noise(1) + 7
    insides = [everywhere(channels), everywhere(others)]
    insides[which][0] = False
    matched = match_histograms(channels, others, *insides)
    assert torch.equal(matched[0], channels[0])
    assert matched[1].mean().item() == pytest.approx(7, abs=0.1)
    constant = torch.full((1, 5, 5), 2.0)
    assert torch.equal(
        match_histograms(constant, constant * 3, everywhere(constant), everywhere(constant)), constant * 3
    )
