"""What training minimizes: Dice and cross entropy, on every resolution that the network predicts.

Source of all formulas: the reference method (nnU-Net v2.8.1, training losses), with its golden values in the tests.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

SMOOTH = 1e-5
"""Keeps Dice defined where a class is in neither target nor prediction."""


def dice_loss(logits: torch.Tensor, target: torch.Tensor, *, batch_dice: bool) -> torch.Tensor:
    """Minus the mean soft Dice of the foreground classes.

    Args:
        logits: Shape (n, classes, *patch).
        target: Shape (n, *patch), int64.
        batch_dice: Sum over the batch before dividing, so that patches without a class do not count against it.

    Returns:
        A scalar between -1 (perfect) and 0.
    """
    probabilities = logits.float().softmax(dim=1)[:, 1:]
    classes = torch.arange(1, logits.shape[1], device=target.device).reshape(1, -1, *[1] * (target.ndim - 1))
    indicator = target.unsqueeze(1) == classes
    axes = tuple(range(2, logits.ndim))
    intersection = (probabilities * indicator).sum(axes)
    predicted, present = probabilities.sum(axes), indicator.sum(axes)
    if batch_dice:
        intersection, predicted, present = intersection.sum(0), predicted.sum(0), present.sum(0)
    dice = (2 * intersection + SMOOTH) / (predicted + present + SMOOTH).clamp_min(1e-8)
    return -dice.mean()


def dice_and_cross_entropy(logits: torch.Tensor, target: torch.Tensor, *, batch_dice: bool) -> torch.Tensor:
    """Soft Dice loss plus cross entropy averaged over voxels, of equal weight; see `dice_loss` for the arguments."""
    return dice_loss(logits, target, batch_dice=batch_dice) + F.cross_entropy(logits.float(), target)


def supervision_weights(outputs: int) -> tuple[float, ...]:
    """Weights of the resolutions, finest first: halved each time, the coarsest unused, together 1.

    Example: 4 outputs give 4/7, 2/7, 1/7, 0. One output has weight 1.
    """
    if outputs == 1:
        return (1.0,)
    weights = [0.5**level for level in range(outputs - 1)]
    return (*(weight / sum(weights) for weight in weights), 0.0)


def supervised_loss(outputs: Sequence[torch.Tensor], target: torch.Tensor, *, batch_dice: bool) -> torch.Tensor:
    """Weighted sum of Dice and cross entropy over all resolutions; the target is coarsened by nearest neighbour.

    Args:
        outputs: Logits (n, classes, *size), finest first.
        target: Shape (n, *patch), int64.
        batch_dice: See `dice_loss`.
    """
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for weight, logits in zip(supervision_weights(len(outputs)), outputs, strict=True):
        if weight > 0:
            total = total + weight * dice_and_cross_entropy(logits, _coarsen(target, logits), batch_dice=batch_dice)
    return total


def _coarsen(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The target on the grid of some logits: the voxel at the middle of each coarse one.

    Example: along an axis of 10 voxels coarsened to 5, voxels 1, 3, 5, 7, 9 are taken.
    """
    for axis, (fine, coarse) in enumerate(zip(target.shape[1:], logits.shape[2:], strict=True), start=1):
        if fine != coarse:
            middle = ((torch.arange(coarse, device=target.device) + 0.5) * fine / coarse).long()
            target = target.index_select(axis, middle)
    return target
