"""Sums over the voxels of all tiles, from which follows the Dice of each structure between votes and their mean."""

import math

import torch
from torch import Tensor

from autoseg.imaging.targets import Targets

BITS = 8  # Masks of structures that may overlap are kept eight to a byte

REPLICAS = 256
"""Number of copies of each sum to which a GPU adds in turn. Decision: additions to the same place of the memory wait
for each other, and most voxels are of few classes."""

VOXELS_AT_ONCE = 2**24
"""Number of voxels, of all votes, that a GPU adds at once. Decision: it takes 24 bytes for each."""


class DiceSums:
    """Sums over voxels, weighted by the voxels' shares: of each structure in each vote, in the mean, and in both.

    Sums are float64, on the device of the votes.

    Decision: on a CUDA GPU sums are made without `bincount`, for which the CPU waits several times.

    Args:
        targets: What the numbers of the votes mean.
        votes: Number of votes.
        device: Device of the votes.
    """

    def __init__(self, targets: Targets, votes: int, device: torch.device) -> None:
        self._targets = targets
        count = len(targets.names)
        self._in_vote, self._in_both = torch.zeros(2, votes, count, dtype=torch.float64, device=device)
        self._in_mean = torch.zeros(count, dtype=torch.float64, device=device)

    def add(self, votes: Tensor, mean: Tensor, shares: Tensor) -> None:
        """Adds n voxels.

        Args:
            votes: Winners of each vote, (votes, words, n).
            mean: Winners of their mean, (words, n).
            shares: Weight of each voxel, (n,), on the device of the votes.
        """
        add = self._add_classes if self._targets.exclusive else self._add_bits
        add(votes, mean, shares.to(torch.float64))

    def dice(self) -> list[float]:
        """Returns the mean Dice of each structure; NaN if the mean has none of it."""
        dice = (2 * self._in_both / (self._in_vote + self._in_mean)).mean(dim=0)
        values, sizes = torch.stack([dice, self._in_mean]).tolist()
        return [value if size > 0 else math.nan for value, size in zip(values, sizes, strict=True)]

    def _add_classes(self, votes: Tensor, mean: Tensor, shares: Tensor) -> None:
        classes = len(self._in_mean) + 1
        count = scatter_by_class if votes.device.type == "cuda" else count_by_class
        in_vote, in_both, in_mean = count(votes[:, 0], mean[0], shares, classes)
        self._in_vote += in_vote[:, 1:]
        self._in_both += in_both[:, 1:]
        self._in_mean += in_mean[1:]

    def _add_bits(self, votes: Tensor, mean: Tensor, shares: Tensor) -> None:
        for number in range(len(self._in_mean)):
            word, bit = divmod(number, BITS)
            voted, agreed = (votes[:, word] >> bit) & 1, (mean[word] >> bit) & 1
            self._in_vote[:, number] += (voted * shares).sum(dim=1)
            self._in_both[:, number] += (voted * agreed * shares).sum(dim=1)
            self._in_mean[number] += (agreed * shares).sum()


def count_by_class(votes: Tensor, mean: Tensor, shares: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the shares of the voxels of each class, summed up.

    Example: of three voxels, two are of class 1 in the vote, and one of these also in the mean.
        >>> shares = torch.tensor([1, 1, 0.5], dtype=torch.float64)
        >>> sums = count_by_class(torch.tensor([[0, 1, 1]]), torch.tensor([0, 1, 0]), shares, classes=2)
        >>> [values.tolist() for values in sums]
        [[[1.0, 1.5]], [[1.0, 1.0]], [1.5, 1.0]]

    Args:
        votes: Class of each voxel in each vote, (votes, n).
        mean: Class of each voxel in their mean, (n,).
        shares: Weight of each voxel, (n,), float64.
        classes: Number of classes.

    Returns:
        The sum for each class over its voxels in each vote, (votes, classes), float64; the sum over those that are of
        that class in the mean as well; and the sum over its voxels in the mean, (classes,).
    """
    voted, count = votes.long(), len(votes)
    bins = (voted + classes * torch.arange(count, device=voted.device)[:, None]).flatten()

    def sum_by_class(weights: Tensor) -> Tensor:
        return bins.bincount(weights.flatten(), count * classes).view(count, classes)

    in_vote, in_both = sum_by_class(shares.expand(count, -1)), sum_by_class(shares * (votes == mean))
    return in_vote, in_both, mean.long().bincount(shares, classes)


def scatter_by_class(votes: Tensor, mean: Tensor, shares: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what `count_by_class` returns, without making the CPU wait for a GPU.

    Neighbouring voxels are added to different replicas of the sums, and some votes at a time, for the memory.

    Example:
        >>> shares = torch.tensor([1, 1, 0.5], dtype=torch.float64)
        >>> sums = scatter_by_class(torch.tensor([[0, 1, 1]]), torch.tensor([0, 1, 0]), shares, classes=2)
        >>> [values.tolist() for values in sums]
        [[[1.0, 1.5]], [[1.0, 1.0]], [1.5, 1.0]]
    """
    replicas = torch.arange(len(mean), device=mean.device).remainder_(REPLICAS).mul_(classes)

    def sum_by_class(bins: Tensor, weights: Tensor) -> Tensor:
        sums = torch.zeros(len(bins), REPLICAS * classes, dtype=torch.float64, device=bins.device)
        return sums.scatter_add_(1, bins, weights).view(len(bins), REPLICAS, classes).sum(dim=1)

    in_vote, in_both = [], []
    for some in torch.split(votes, max(1, VOXELS_AT_ONCE // len(mean))):
        bins = replicas + some
        in_vote.append(sum_by_class(bins, shares.expand(len(some), -1)))
        in_both.append(sum_by_class(bins, shares * (some == mean)))
    return torch.cat(in_vote), torch.cat(in_both), sum_by_class((replicas + mean)[None], shares[None])[0]
