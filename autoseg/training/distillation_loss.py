"""The loss by which a student learns the probabilities of a teacher."""

import torch
import torch.nn.functional as F

from autoseg.training.overlap_loss import SMOOTH
from autoseg.training.ranks import ALONE, Ranks


def distillation_loss(
    logits: torch.Tensor, soft: torch.Tensor, *, exclusive: bool, batch_dice: bool = False, ranks: Ranks = ALONE
) -> torch.Tensor:
    """Returns the cross entropy to the probabilities of a teacher, minus the mean soft Dice with them.

    Both are least where student and teacher agree. The cross entropy is the usual loss of distillation at temperature
    1. Source: Hinton et al. 2015, Distilling the knowledge in a neural network. Usual soft Dice is not: of p and 0.6 it
    is best for p = 1. So hits are counted as (|p| + |q| - |p - q|) / 2, which equals the usual sum of p q where q is a
    label. Source: Wang et al. 2023, Dice semimetric losses, arXiv 2303.16296.

    Args:
        logits: Shape (n, outputs, *size).
        soft: Probability of each structure by the teacher, shape (n, structures, *size), float32.
        exclusive: Whether structures exclude each other, so that the background is an output too.
        batch_dice: Whether Dice sums over the batch before dividing; see `losses.Loss`.
        ranks: The processes that share the batch; see `losses.Loss`.

    Returns:
        A scalar: the share of this rank in the loss of the batch.

    Example:
        >>> soft = torch.tensor([[[0.6, 0.6]]])
        >>> agreeing, certain = torch.logit(soft), torch.full_like(soft, 9.0)
        >>> bool(distillation_loss(agreeing, soft, exclusive=False) < distillation_loss(certain, soft, exclusive=False))
        True
    """
    axes = tuple(range(2, logits.ndim))
    if exclusive:
        background = (1 - soft.sum(dim=1, keepdim=True)).clamp_min(0)
        log_probabilities = logits.log_softmax(dim=1)
        losses = -(torch.cat([background, soft], dim=1) * log_probabilities).sum(dim=1)
        probabilities = log_probabilities[:, 1:].exp()
    else:
        losses = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
        probabilities = logits.sigmoid()
    voxels = ranks.all_reduce(torch.tensor(float(losses.numel()), device=logits.device))
    sums = probabilities.sum(axes) + soft.sum(axes)
    apart = (probabilities - soft).abs().sum(axes)
    if batch_dice:
        sums, apart = ranks.all_reduce_with_gradient(torch.stack([sums.sum(0), apart.sum(0)]))
    overlap = (sums - apart + SMOOTH) / (sums + SMOOTH)
    if batch_dice:
        return losses.sum() / voxels - ranks.equal_share(overlap.mean())
    structures = ranks.all_reduce(torch.tensor(float(overlap.numel()), device=logits.device))
    return losses.sum() / voxels - overlap.sum() / structures
