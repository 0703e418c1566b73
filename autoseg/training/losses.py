"""The training loss: overlap and voxelwise terms, on every resolution that the network predicts.

Source of the usual loss, Dice and cross entropy: the reference method (nnU-Net v2.8.1, training losses), whose golden
values are in the tests. The sources of the other losses stand in their docstrings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F

from autoseg.errors import UsageError
from autoseg.imaging.label_encoding import TargetLabels
from autoseg.imaging.targets import Targets
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.plugins import find_loss
from autoseg.planning.settings import LossSettings
from autoseg.runtime.device import copy_to
from autoseg.training.auxiliary_loss import auxiliary_loss
from autoseg.training.ground_truth import GroundTruth, merge_unknown
from autoseg.training.ranks import ALONE, Ranks

SMOOTH = 1e-5
"""Keeps Dice defined where a class is in neither target nor prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The loss of a training run; called with outputs and labels.

    Attributes:
        targets: The structures that the outputs stand for.
        settings: The terms of the loss.
        batch_dice: Whether Dice sums over the batch before dividing, so that patches without a class do not count
            against it.
        ranks: The processes that share the batch. The loss of each is its share: they add up to the loss of the batch.
        auxiliary_outputs: What the last outputs of training predict, if not the labels.
    """

    targets: Targets
    settings: LossSettings
    batch_dice: bool
    ranks: Ranks = ALONE
    auxiliary_outputs: tuple[AuxiliaryOutput, ...] = ()

    def __call__(
        self, outputs: Sequence[torch.Tensor], labels: torch.Tensor, unknown: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the weighted sum over all resolutions; the labels are coarsened by nearest neighbour.

        Args:
            outputs: Logits of shape (n, outputs, *size), finest first, followed in training by the auxiliary outputs.
                In evaluation there is a single output, which is compared with the labels.
            labels: Label map of shape (n, *patch), or masks of shape (n, structures, *patch); see `GroundTruth`.
            unknown: Structures that were not annotated in the case of a patch, shape (n, structures), bool.

        Returns:
            A scalar.
        """
        total = outputs[0].new_zeros((), dtype=torch.float32)
        for weight, logits, auxiliary in zip(self.weigh(outputs), outputs, self._assign(outputs), strict=True):
            if weight == 0:
                continue
            coarse = labels if auxiliary is not None and auxiliary.is_per_patch else coarsen(labels, logits)
            if auxiliary is None:
                loss = self.at_one_resolution(logits.float(), coarse, unknown)
            else:
                loss = auxiliary_loss(auxiliary, logits.float(), coarse, self.targets, unknown, self.ranks)
            total = total + weight * loss
        return total

    def weigh(self, outputs: Sequence[torch.Tensor]) -> tuple[float, ...]:
        """Returns the weight of each output: `deep_supervision_weights`, or the own weight of an auxiliary output."""
        kinds = self._assign(outputs)
        sizes = [logits.shape[2:] for logits, auxiliary in zip(outputs, kinds, strict=True) if auxiliary is None]
        return (
            *deep_supervision_weights(sizes),
            *(auxiliary.weight for auxiliary in kinds if auxiliary is not None),
        )

    def _assign(self, outputs: Sequence[torch.Tensor]) -> tuple[AuxiliaryOutput | None, ...]:
        """Returns what each output predicts: None for the labels."""
        auxiliary_outputs = self.auxiliary_outputs if len(outputs) > 1 else ()
        return (*[None] * (len(outputs) - len(auxiliary_outputs)), *auxiliary_outputs)

    def at_one_resolution(
        self, logits: torch.Tensor, labels: torch.Tensor, unknown: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the loss of logits (n, outputs, *size) and labels on the same grid, float32."""
        settings, ground_truth = self.settings, GroundTruth.of(TargetLabels(labels), self.targets, unknown)
        if ground_truth.unknown is not None and self.targets.exclusive:
            logits = merge_unknown(logits, ground_truth.unknown)
        if settings.custom is not None:
            return compute_custom_loss(settings.custom, logits, ground_truth, self.ranks)
        total = logits.new_zeros(())
        if settings.overlap != "none":
            overlap = overlap_loss(logits, ground_truth, settings, batch_dice=self.batch_dice, ranks=self.ranks)
            total = total + settings.overlap_weight * overlap
        if settings.voxelwise != "none":
            total = total + settings.voxelwise_weight * voxelwise_loss(logits, ground_truth, settings, self.ranks)
        return total


def compute_custom_loss(
    custom: Plugin, logits: torch.Tensor, ground_truth: GroundTruth, ranks: Ranks = ALONE
) -> torch.Tensor:
    """Returns the loss that an installed package offers. Each rank weighs by the number of its patches.

    Args:
        custom: Name and settings of the loss.
        logits: Shape (n, outputs, *size).
        ground_truth: The ground truth on the same grid.
        ranks: The processes that share the batch; see `Loss`.

    Raises:
        UsageError: The loss is no scalar, or not installed.
    """
    loss: object = find_loss(custom.name)(logits, ground_truth, custom.read_only_settings)
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        kind = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise UsageError(f"the loss {custom.name!r} is {kind}, not a tensor without axes", "mend that package")
    if ranks.alone:
        return loss
    patches = torch.tensor(float(len(logits)))
    return loss * float(patches / ranks.all_reduce(patches))


def overlap_loss(
    logits: torch.Tensor,
    ground_truth: GroundTruth,
    settings: LossSettings,
    *,
    batch_dice: bool = False,
    ranks: Ranks = ALONE,
) -> torch.Tensor:
    """Returns minus the mean overlap of the structures, between -1 (perfect) and 0.

    "dice" is soft Dice. "squared_dice" has squares in the denominator. Source: Milletari et al. 2016, V-Net. "tversky"
    weighs false positives and false negatives apart. Source: Salehi et al. 2017, Tversky loss.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: The ground truth on the same grid.
        settings: The kind of overlap.
        batch_dice: Whether to sum over the batch before dividing; see `Loss`.
        ranks: The processes that share the batch; see `Loss`.
    """
    probabilities = logits.softmax(dim=1)[:, 1:] if ground_truth.exclusive else logits.sigmoid()
    axes = tuple(range(2, logits.ndim))
    present, counted = ground_truth.present, ground_truth.counted
    if counted is not None:
        probabilities, present = probabilities * counted, present & counted
    hits = (probabilities * present).sum(axes)
    squares = probabilities.square() if settings.overlap == "squared_dice" else probabilities
    predicted, actual = squares.sum(axes), present.sum(axes)
    known = torch.ones_like(actual, dtype=torch.bool) if ground_truth.unknown is None else ~ground_truth.unknown
    if batch_dice:
        hits, predicted, actual = ranks.all_reduce_with_gradient(
            torch.stack([hits.sum(0), predicted.sum(0), actual.sum(0)])
        )
    if settings.overlap == "tversky":
        wrong = settings.false_positives * (predicted - hits) + settings.false_negatives * (actual - hits)
        overlap = (hits + SMOOTH) / (hits + wrong + SMOOTH)
    else:
        overlap = (2 * hits + SMOOTH) / (predicted + actual + SMOOTH).clamp_min(1e-8)
    if batch_dice:
        known = ranks.all_reduce(known.sum(0)) > 0
        return ranks.equal_share(-(overlap * known).sum() / known.sum().clamp_min(1))
    return -(overlap * known).sum() / ranks.all_reduce(known.sum()).clamp_min(1)


def voxelwise_loss(
    logits: torch.Tensor, ground_truth: GroundTruth, settings: LossSettings, ranks: Ranks = ALONE
) -> torch.Tensor:
    """Returns cross entropy, or a form of it, averaged over voxels.

    If structures may overlap, it is binary, and averaged over structures too. "focal" gives voxels that are certain
    already less weight. Source: Lin et al. 2017, focal loss. "top_k" averages over the share of the voxels with the
    highest losses, of each rank apart; all ranks weigh the same. Source: the reference method's variant.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: The ground truth on the same grid.
        settings: The form, and the weight of each output.
        ranks: The processes that share the batch; see `Loss`.
    """
    if (
        settings.voxelwise == "cross_entropy"
        and ground_truth.exclusive
        and ground_truth.counted is None
        and ranks.alone
    ):
        weight = None if settings.class_weights is None else _class_weights(settings.class_weights, logits.device)
        return F.cross_entropy(logits, ground_truth.classes, weight=weight)
    losses, weights = _each_voxel(logits, ground_truth, settings)
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


def _each_voxel(
    logits: torch.Tensor, ground_truth: GroundTruth, settings: LossSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns cross entropy and weight of each voxel, shape (n, 1, *size), or of each structure if they may overlap."""
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
    return losses, weights


def deep_supervision_weights(sizes: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Returns the weights of outputs by their sizes: halved for each coarser size, 0 for the coarsest, together 1.

    Outputs of the same size weigh the same. Decision: so networks that bring the outputs of all levels to full
    resolution train each as much as the others, as UNet++ and UNet 3+ do.

    Example:
        >>> [round(7 * weight) for weight in deep_supervision_weights([(40,), (20,), (10,), (5,)])]
        [4, 2, 1, 0]
        >>> deep_supervision_weights([(40, 40), (40, 40)])
        (0.5, 0.5)
        >>> deep_supervision_weights([(40,)])
        (1.0,)

    Args:
        sizes: Size of each output in voxels.
    """
    resolutions = sorted({tuple(size) for size in sizes}, key=prod, reverse=True)
    levels = [resolutions.index(tuple(size)) for size in sizes]
    unused = len(resolutions) - 1 if len(resolutions) > 1 else None
    weights = [0.0 if level == unused else 0.5**level for level in levels]
    return tuple(weight / sum(weights) for weight in weights)


def coarsen(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Returns labels on the grid of some logits: the voxel at the middle of each coarse one.

    Example:
        >>> coarsen(torch.arange(10).reshape(1, 10), torch.zeros(1, 2, 5))
        tensor([[1, 3, 5, 7, 9]])

    Args:
        labels: Label map of shape (n, *size), or masks of shape (n, structures, *size).
        logits: Shape (n, outputs, *coarse size).
    """
    for axis in range(1, logits.ndim - 1):  # from the last one on, because masks have one axis more
        fine, coarse = labels.shape[-axis], logits.shape[-axis]
        if fine != coarse:
            middle = ((torch.arange(coarse, device=labels.device) + 0.5) * fine / coarse).long()
            labels = labels.index_select(labels.ndim - axis, middle)
    return labels
