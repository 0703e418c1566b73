"""Histogram matching: a patch takes on the distribution of intensities of another patch."""

import torch

LEVELS = 256
"""Number of steps of a distribution. Decision: as many as an 8-bit image has grey levels."""

MOST_VALUES = 2**16
"""Number of voxels that a distribution is estimated from. Decision: 256 for each step; sorting them costs little."""


def match_histograms(
    channels: torch.Tensor, others: torch.Tensor, inside: torch.Tensor, others_inside: torch.Tensor
) -> torch.Tensor:
    """Gives each channel the distribution of intensities of another channel.

    Equal values stay equal, and the order of values stays the same. A value that fills many voxels, such as the zero of
    a background, becomes the median of the values that would take its place. Source: V-Net (Milletari et al. 2016),
    section 3, which matches whole scans.

    Args:
        channels: Channels that change, shape (m, *patch).
        others: Channels whose distributions they take on, shape (m, *patch).
        inside: Mask of the voxels of `channels` that belong to a scan; only these count and change. Shape (m, *patch).
        others_inside: Mask of the voxels of `others` that belong to a scan, shape (m, *patch).

    Returns:
        Shape (m, *patch). A channel stays as it is if it or its other channel has no voxel inside.

    Example:
        >>> dark, bright = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[10.0, 20.0, 30.0]])
        >>> mask = torch.ones(1, 3, dtype=torch.bool)
        >>> match_histograms(dark, bright, mask, mask)
        tensor([[10., 20., 30.]])
    """
    source, target = _quantiles(channels, inside), _quantiles(others, others_inside)
    is_defined = source[:, :1].isfinite() & target[:, :1].isfinite()
    source, target = source.nan_to_num(0.0), target.nan_to_num(0.0)
    values = channels.flatten(1).contiguous()
    level = _find_levels(source, values)
    below = level.floor().long().clamp_max(LEVELS - 1)
    low = target.gather(1, below)
    matched = low + (level - below) * (target.gather(1, below + 1) - low)
    return torch.where(is_defined & inside.flatten(1), matched, values).reshape(channels.shape)


def _quantiles(channels: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Returns the quantiles of each channel at even steps, from its minimum to its maximum; shape (m, LEVELS + 1).

    They are not finite if a channel has no voxel inside.
    """
    values, counted = channels.flatten(1), inside.flatten(1)
    step = max(1, values.shape[1] // MOST_VALUES) | 1  # an even step might meet a few columns of the patch only
    ordered = torch.where(counted[:, ::step], values[:, ::step], torch.inf).sort(dim=1).values
    last = (counted[:, ::step].sum(dim=1, keepdim=True) - 1).clamp_min(0)
    rank = torch.linspace(0, 1, LEVELS + 1, device=channels.device) * last
    below = rank.floor().long()
    low = ordered.gather(1, below)
    return low + (rank - below) * (ordered.gather(1, torch.minimum(below + 1, last)) - low)


def _find_levels(quantiles: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Returns the position of each value among quantiles, from 0 to LEVELS.

    A value that equals several quantiles gets the position in the middle of them.
    """
    first = torch.searchsorted(quantiles, values)
    after = torch.searchsorted(quantiles, values, right=True)
    above, below = first.clamp_max(LEVELS), (first - 1).clamp_min(0)
    low = quantiles.gather(1, below)
    share = (values - low) / (quantiles.gather(1, above) - low).clamp_min(1e-30)
    between = below + share.clamp(0, 1)
    return torch.where(after > first, (first + after - 1) / 2, between).clamp(0, LEVELS)
