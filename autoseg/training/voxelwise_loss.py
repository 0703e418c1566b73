"""Losses of each voxel apart: cross entropy and its forms."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from autoseg.planning.loss_settings import LossSettings
from autoseg.runtime.device import copy_to
from autoseg.training.ground_truth import GroundTruth
from autoseg.training.ranks import ALONE, Ranks


def voxelwise_loss(
    logits: torch.Tensor,
    ground_truth: GroundTruth,
    settings: LossSettings,
    ranks: Ranks = ALONE,
    borders: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns cross entropy, or a form of it, averaged over voxels.

    If structures may overlap, it is binary, and averaged over structures too. "focal" gives voxels that are certain
    already less weight. Source: Lin et al. 2017, focal loss. "top_k" averages over the share of the voxels with the
    highest losses, of each rank apart; all ranks weigh the same. Source: the reference method's variant.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: The ground truth on the same grid.
        settings: The form, and the weight of each output.
        ranks: The processes that share the batch; see `losses.Loss`.
        borders: Borders between components, if they weigh more; see `each_voxel`.
    """
    if (
        settings.voxelwise == "cross_entropy"
        and ground_truth.exclusive
        and ground_truth.counted is None
        and ranks.alone
        and borders is None
    ):
        weight = None if settings.class_weights is None else _class_weights(settings.class_weights, logits.device)
        return F.cross_entropy(logits, ground_truth.classes, weight=weight)
    losses, weights = each_voxel(logits, ground_truth, settings, borders)
    if settings.voxelwise == "top_k":
        counted = None if ground_truth.counted is None else ground_truth.counted.expand_as(losses)
        return ranks.equal_share(_mean_of_highest(losses, counted, settings.top_k_share))
    return (losses * weights).sum() / ranks.all_reduce(weights.sum()).clamp_min(1e-8)


def _mean_of_highest(losses: torch.Tensor, counted: torch.Tensor | None, share: float) -> torch.Tensor:
    """Returns the mean of the highest losses; 0 if none counts.

    How many losses count is not asked of the device, which would have to be waited for: as many are sorted as there
    would be if all counted, and of these the mean is taken over the share of those that count.

    Args:
        losses: Losses of any shape.
        counted: Which of them count, bool, in the same shape; None if all do.
        share: Share of the losses that count over which the mean is taken; at least one.
    """
    most = max(1, round(share * losses.numel()))
    if counted is None:
        return losses.flatten().topk(most, sorted=False).values.mean()
    highest = losses.masked_fill(~counted, -torch.inf).flatten().topk(most).values
    number = (share * counted.sum()).round().clamp_min(1)
    chosen = (torch.arange(most, device=losses.device) < number) & (highest > -torch.inf)
    return torch.where(chosen, highest, 0.0).sum() / number


def _class_weights(weights: Sequence[float], device: torch.device) -> torch.Tensor:
    """Returns the weight of each class on a device, without waiting for the device."""
    return copy_to(torch.tensor(weights), device)


def each_voxel(
    logits: torch.Tensor, ground_truth: GroundTruth, settings: LossSettings, borders: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns cross entropy and weight of each voxel, shape (n, 1, *size), or of each structure if they may overlap.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: The ground truth on the same grid.
        settings: The form, the weight of each output, and that of borders.
        borders: How near each voxel is to two components, 0 to 1, in the shape of the result; see `imaging.borders`.
            None if voxels between components weigh as much as others.
    """
    if ground_truth.exclusive:
        losses = F.cross_entropy(logits, ground_truth.classes, reduction="none").unsqueeze(1)
    else:
        losses = F.binary_cross_entropy_with_logits(logits, ground_truth.present.float(), reduction="none")
    if settings.voxelwise == "focal":
        losses = (1 - torch.exp(-losses)) ** settings.focal_exponent * losses
    weights = (
        torch.ones_like(losses)
        if ground_truth.counted is None
        else ground_truth.counted.expand_as(losses).to(losses.dtype)
    )
    if settings.class_weights is not None:
        class_weights = _class_weights(settings.class_weights, logits.device)
        spread = class_weights.reshape(1, -1, *[1] * (logits.ndim - 2))
        weights = weights * (class_weights[ground_truth.classes].unsqueeze(1) if ground_truth.exclusive else spread)
    if borders is not None:
        weights = weights * (1 + settings.border_weight * borders)
    return losses, weights
