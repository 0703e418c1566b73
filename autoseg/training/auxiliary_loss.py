"""The loss of outputs that stand for something else than the labels: what they should tell follows from the labels."""

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
    """Binary cross entropy: the mean over voxels, then over the channels of all patches of which something is known.

    If balanced, voxels where the answer is yes weigh ln(V / (P + 1)) in a patch of V voxels, of which P are such; the
    others weigh 1. Source: Zhang et al. 2020, "Inter-slice context residual learning for 3D medical image
    segmentation". Decision: for each channel of each patch apart, so that the loss of a batch is a mean over its
    patches; and never below 0, which the formula would give where nearly all answers are yes.

    Args:
        auxiliary: What the output stands for.
        logits: Shape (n, outputs, *size); of one voxel, or else on the grid of the labels.
        labels: See `Loss`.
        targets: Of the network.
        unknown: See `Loss`.
        ranks: See `Loss`.

    Returns:
        A scalar: the share of this rank.
    """
    asked, counted = find_answers(auxiliary, labels, targets, unknown)
    axes = tuple(range(2, logits.ndim))
    heavier = _balance(asked, counted) if auxiliary.balanced else None
    losses = F.binary_cross_entropy_with_logits(logits, asked.float(), pos_weight=heavier, reduction="none")
    if counted is None:
        return losses.mean(axes).sum() / ranks.all_reduce(torch.tensor(asked.shape[:2].numel(), device=logits.device))
    voxels = counted.sum(axes)
    means = (losses * counted).sum(axes) / voxels.clamp_min(1)
    return means.sum() / ranks.all_reduce((voxels > 0).sum()).clamp_min(1)


def find_answers(
    auxiliary: AuxiliaryOutput, labels: torch.Tensor, targets: Targets, unknown: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What each channel should tell, and which answers are known.

    Example: a structure in the slices 0, 1 and 3 of four changes in the slices 0, 2 and 3. The background, which has it
    the other way round, changes in the same ones: before the first slice there is background alone. If nobody labelled
    slice 1, nothing is known of the changes in the slices 1 and 2; that the structure is present is known from any
    voxel of it, that it is absent only if all voxels were labelled.

    Args:
        auxiliary: Which answers.
        labels: See `Loss`.
        targets: Of the network.
        unknown: See `Loss`. The background is as unknown as any structure: it may be one that nobody looked for.

    Returns:
        Two tensors of bool: (n, outputs, *size), or of one voxel; and the same shape, or None if all are known.
    """
    there, counted = _read_outputs(labels, targets, unknown)
    if auxiliary.is_per_patch:
        return _look_anywhere(there, counted, absent=auxiliary.target == "absence")
    nothing = torch.zeros_like(there[:, :, :1])
    if targets.exclusive:
        nothing[:, 0] = True
    changed = there != torch.cat([nothing, there[:, :, :-1]], dim=2)
    if counted is not None:
        counted = torch.cat([counted[:, :, :1], counted[:, :, 1:] & counted[:, :, :-1]], dim=2)
    return changed, counted


def _look_anywhere(
    there: torch.Tensor, counted: torch.Tensor | None, *, absent: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One answer for each patch and channel."""
    axes = tuple(range(2, there.ndim))
    found = (there if counted is None else there & counted).amax(axes, keepdim=True)
    known = None if counted is None else counted.amin(axes, keepdim=True) | found
    return ~found if absent else found, known


def _read_outputs(
    labels: torch.Tensor, targets: Targets, unknown: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Where that is what each output stands for, and where that is known: both (n, outputs, *size), bool."""
    ground_truth = GroundTruth.of(TargetLabels(labels), targets, unknown)
    there, counted = ground_truth.present, ground_truth.counted
    if ground_truth.exclusive:
        there = torch.cat([~there.any(dim=1, keepdim=True), there], dim=1)
        if unknown is not None:
            known = ~torch.cat([unknown.any(dim=1, keepdim=True), unknown], dim=1)
            known = known.reshape(*known.shape, *[1] * (there.ndim - 2))
            counted = known if counted is None else counted & known
    return there, None if counted is None else counted.expand_as(there)


def _balance(asked: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
    """How much a yes weighs, (n, outputs, 1, ...)."""
    axes = tuple(range(2, asked.ndim))
    if counted is None:
        voxels, yes = torch.tensor(prod(asked.shape[2:]), device=asked.device), asked.sum(axes, keepdim=True)
    else:
        voxels, yes = counted.sum(axes, keepdim=True), (asked & counted).sum(axes, keepdim=True)
    return (voxels / (yes + 1)).clamp_min(1).log()
