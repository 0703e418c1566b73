"""The sums of `dice_sums` on a CUDA GPU."""

import torch
from torch import Tensor

REPLICAS = 256
"""Number of copies of each sum to which a GPU adds in turn. Decision: additions to the same place of the memory wait
for each other, and most voxels are of few classes."""

VOXELS_AT_ONCE = 2**24
"""Number of voxels, of all votes, that a GPU adds at once. Decision: it takes 24 bytes for each."""


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
