"""Histogram matching: a patch takes on the intensities of another one."""

import torch

LEVELS = 256
"""Steps of the distributions. Decision: as many as the grey levels of a picture."""

MOST_VALUES = 2**16
"""Voxels from which a distribution is estimated. Decision: 256 for each step, and a sort that costs next to nothing."""


def match_histograms(
    channels: torch.Tensor, others: torch.Tensor, inside: torch.Tensor, others_inside: torch.Tensor
) -> torch.Tensor:
    """Gives each channel the distribution of intensities that another one has.

    Equal values stay equal and the order of values stays the same. A value that fills many voxels, such as the zero of
    a background, becomes the median of the values that would take its place. Source: V-Net (Milletari et al. 2016),
    section 3, which matches whole scans.

    Args:
        channels: Shape (m, *patch).
        others: The channels whose distributions are wanted; shape (m, *patch).
        inside: Where channels belong to a scan; only these voxels count and change. Shape (m, *patch).
        others_inside: The same of the others.

    Returns:
        Shape (m, *patch). A channel stays as it is if it or its other has no voxel inside.
    """
    source, target = _quantiles(channels, inside), _quantiles(others, others_inside)
    known = source[:, :1].isfinite() & target[:, :1].isfinite()
    source, target = source.nan_to_num(0.0), target.nan_to_num(0.0)
    values = channels.flatten(1).contiguous()
    level = _find_levels(source, values)
    below = level.floor().long().clamp_max(LEVELS - 1)
    low = target.gather(1, below)
    matched = low + (level - below) * (target.gather(1, below + 1) - low)
    return torch.where(known & inside.flatten(1), matched, values).reshape(channels.shape)


def _quantiles(channels: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Values at even steps of the distribution, from the least to the largest; shape (m, LEVELS + 1).

    Not finite if a channel has no voxel inside.
    """
    values, counted = channels.flatten(1), inside.flatten(1)
    step = max(1, values.shape[1] // MOST_VALUES) | 1  # odd: an even one might see a few columns of a patch only
    ordered = torch.where(counted[:, ::step], values[:, ::step], torch.inf).sort(dim=1).values
    last = (counted[:, ::step].sum(dim=1, keepdim=True) - 1).clamp_min(0)
    rank = torch.linspace(0, 1, LEVELS + 1, device=channels.device) * last
    below = rank.floor().long()
    low = ordered.gather(1, below)
    return low + (rank - below) * (ordered.gather(1, torch.minimum(below + 1, last)) - low)


def _find_levels(quantiles: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Where values stand among quantiles, from 0 to LEVELS; a value that equals several stands in their middle."""
    first = torch.searchsorted(quantiles, values)
    after = torch.searchsorted(quantiles, values, right=True)
    above, below = first.clamp_max(LEVELS), (first - 1).clamp_min(0)
    low = quantiles.gather(1, below)
    share = (values - low) / (quantiles.gather(1, above) - low).clamp_min(1e-30)
    between = below + share.clamp(0, 1)
    return torch.where(after > first, (first + after - 1) / 2, between).clamp(0, LEVELS)
