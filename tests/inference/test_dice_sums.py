"""Tests of the sums that agreement is calculated from: the two ways to make them are equal."""

import pytest
import torch

from autoseg.imaging.targets import Targets
from autoseg.inference import dice_sums_on_gpu
from autoseg.inference.dice_sums import DiceSums, count_by_class
from autoseg.inference.dice_sums_on_gpu import scatter_by_class


@pytest.mark.parametrize("voxels_at_once", [1, 3000, 2**24])
@pytest.mark.parametrize("classes", [2, 5, 300])
def test_sums_of_a_gpu_are_those_of_a_cpu(classes, voxels_at_once, monkeypatch):
    """Scattering to replicas, some votes at a time, sums up what counting does."""
    monkeypatch.setattr(dice_sums_on_gpu, "VOXELS_AT_ONCE", voxels_at_once)
    generator = torch.Generator().manual_seed(1)
    dtype = torch.uint8 if classes < 256 else torch.int16
    votes = torch.randint(classes, (7, 1000), generator=generator).to(dtype)
    shares = torch.rand(1000, dtype=torch.float64, generator=generator)
    for ours, theirs in zip(
        scatter_by_class(votes, votes[2], shares, classes),
        count_by_class(votes.numpy(), votes[2].numpy(), shares.numpy(), classes),
        strict=True,
    ):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-12, atol=1e-12)


def test_a_structure_that_the_mean_lacks_has_no_dice():
    """Votes that found it do not count."""
    sums = DiceSums(Targets(structures={"one": (1,), "two": (2,)}), 2, torch.device("cpu"))
    sums.add(torch.tensor([[[0, 1, 2]], [[1, 1, 0]]]), torch.tensor([[0, 1, 0]]), torch.ones(3))
    one, two = sums.dice()
    assert one == pytest.approx((1 + 2 / 3) / 2)
    assert two != two  # noqa: PLR0124 - NaN
