"""The loss of auxiliary outputs, which predict something other than the labels, with targets that follow from them."""

from math import prod

import torch
import torch.nn.functional as F

from autoseg.imaging.label_encoding import TargetLabels
from autoseg.imaging.targets import Targets
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.training.ground_truth import GroundTruth
from autoseg.training.ranks import ALONE, Ranks


def auxiliary_loss(
    auxiliary: AuxiliaryOutput,
    logits: torch.Tensor,
    labels: torch.Tensor,
    targets: Targets,
    unknown: torch.Tensor | None = None,
    ranks: Ranks = ALONE,
) -> torch.Tensor:
    """Returns binary cross entropy: the mean over voxels, then over the channels of all patches with a known target.

    If balanced, positive voxels weigh ln(V / (P + 1)) in a patch of V voxels, of which P are positive; the others weigh
    1. Source: Zhang et al. 2020, "Inter-slice context residual learning for 3D medical image segmentation". Decision:
    for each channel of each patch apart, so that the loss of a batch is a mean over its patches; and never below 0,
    which the formula would give where nearly all voxels are positive.

    Args:
        auxiliary: What the output predicts.
        logits: Shape (n, outputs, *size), where the size is one voxel, or that of the labels.
        labels: Label map or masks; see `Loss`.
        targets: The structures of the network.
        unknown: Structures that were not annotated; see `Loss`.
        ranks: The processes that share the batch; see `Loss`.

    Returns:
        A scalar: the share of this rank.
    """
    positive, counted = find_answers(auxiliary, labels, targets, unknown)
    axes = tuple(range(2, logits.ndim))
    weights = _balance(positive, counted) if auxiliary.balanced else None
    losses = F.binary_cross_entropy_with_logits(logits, positive.float(), pos_weight=weights, reduction="none")
    if counted is None:
        channels = torch.tensor(positive.shape[:2].numel())  # a single number may stay on the CPU
        return losses.mean(axes).sum() / ranks.all_reduce(channels)
    voxels = counted.sum(axes)
    means = (losses * counted).sum(axes) / voxels.clamp_min(1)
    return means.sum() / ranks.all_reduce((voxels > 0).sum()).clamp_min(1)


def find_answers(
    auxiliary: AuxiliaryOutput, labels: torch.Tensor, targets: Targets, unknown: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns the target of each channel of an auxiliary output, and where it is known.

    Example: a structure in the slices 0, 1 and 3 of four changes in the slices 0, 2 and 3. The background, which is
    present where the structure is not, changes in the same slices: before the first slice there is background alone. If
    slice 1 was not labelled, the changes in the slices 1 and 2 are unknown; that the structure is present is known from
    any voxel of it, that it is absent only if all voxels were labelled.

    Args:
        auxiliary: What the output predicts.
        labels: Label map or masks; see `Loss`.
        targets: The structures of the network.
        unknown: Structures that were not annotated; see `Loss`. The background is then unknown too: it may hold one of
            them.

    Returns:
        The targets, bool, shape (n, outputs, *size), where the size is one voxel for outputs that tell of whole
        patches; and where they are known, of the same shape, or None if all are.
    """
    present, counted = _read_outputs(labels, targets, unknown)
    if auxiliary.is_per_patch:
        return _pool_patch(present, counted, absent=auxiliary.target == "absence")
    before_first = torch.zeros_like(present[:, :, :1])
    if targets.exclusive:
        before_first[:, 0] = True
    changed = present != torch.cat([before_first, present[:, :, :-1]], dim=2)
    if counted is not None:
        counted = torch.cat([counted[:, :, :1], counted[:, :, 1:] & counted[:, :, :-1]], dim=2)
    return changed, counted


def _pool_patch(
    present: torch.Tensor, counted: torch.Tensor | None, *, absent: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns whether each channel occurs anywhere in each patch, or does not, and where that is known."""
    axes = tuple(range(2, present.ndim))
    occurs = (present if counted is None else present & counted).amax(axes, keepdim=True)
    known = None if counted is None else counted.amin(axes, keepdim=True) | occurs
    return ~occurs if absent else occurs, known


def _read_outputs(
    labels: torch.Tensor, targets: Targets, unknown: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns the mask of what each output stands for, and where it is known: both (n, outputs, *size), bool."""
    ground_truth = GroundTruth.of(TargetLabels(labels), targets, unknown)
    present, counted = ground_truth.present, ground_truth.counted
    if ground_truth.exclusive:
        present = torch.cat([~present.any(dim=1, keepdim=True), present], dim=1)
        if unknown is not None:
            known = ~torch.cat([unknown.any(dim=1, keepdim=True), unknown], dim=1)
            known = known.reshape(*known.shape, *[1] * (present.ndim - 2))
            counted = known if counted is None else counted & known
    return present, None if counted is None else counted.expand_as(present)


def _balance(positive: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
    """Returns the weight of positive voxels, shape (n, outputs, 1, ...)."""
    axes = tuple(range(2, positive.ndim))
    if counted is None:
        voxels = torch.tensor(prod(positive.shape[2:]))
        positives = positive.sum(axes, keepdim=True)
    else:
        voxels, positives = counted.sum(axes, keepdim=True), (positive & counted).sum(axes, keepdim=True)
    return (voxels / (positives + 1)).clamp_min(1).log()
