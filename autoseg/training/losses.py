"""What training minimizes: overlap and voxelwise terms, on every resolution that the network predicts.

Source of the usual loss, Dice and cross entropy: the reference method (nnU-Net v2.8.1, training losses), whose golden
values are in the tests. The sources of the others stand at each.
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
from autoseg.planning.plugins import Plugin, find_loss
from autoseg.planning.settings import LossSettings
from autoseg.training.auxiliary_loss import auxiliary_loss
from autoseg.training.ground_truth import GroundTruth, merge_unknown
from autoseg.training.ranks import ALONE, Ranks

SMOOTH = 1e-5
"""Keeps Dice defined where a class is in neither target nor prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The loss of a training run; called with outputs and labels.

    Attributes:
        targets: What the outputs stand for.
        settings: Which terms.
        batch_dice: Sum over the batch before dividing, so that patches without a class do not count against it.
        ranks: Whoever shares the batch. The loss of each is its share: they add up to the loss of the batch.
        auxiliary_outputs: What the last outputs of training stand for, if not for the labels.
    """

    targets: Targets
    settings: LossSettings
    batch_dice: bool
    ranks: Ranks = ALONE
    auxiliary_outputs: tuple[AuxiliaryOutput, ...] = ()

    def __call__(
        self, outputs: Sequence[torch.Tensor], labels: torch.Tensor, unknown: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Weighted sum over all resolutions; the labels are coarsened by nearest neighbour.

        Args:
            outputs: Logits (n, outputs, *size), finest first; behind them, in training, the further outputs. The only
                output of evaluation is judged by the labels alone.
            labels: Shape (n, *patch) of a label map, or (n, structures, *patch) of masks; see `GroundTruth`.
            unknown: Shape (n, structures): structures that nobody looked for in the case of a patch.

        Returns:
            A scalar.
        """
        total = outputs[0].new_zeros((), dtype=torch.float32)
        for weight, logits, auxiliary in zip(self.weigh(outputs), outputs, self._what_for(outputs), strict=True):
            if weight == 0:
                continue
            seen = labels if auxiliary is not None and auxiliary.is_per_patch else coarsen(labels, logits)
            if auxiliary is None:
                loss = self.at_one_resolution(logits.float(), seen, unknown)
            else:
                loss = auxiliary_loss(auxiliary, logits.float(), seen, self.targets, unknown, self.ranks)
            total = total + weight * loss
        return total

    def weigh(self, outputs: Sequence[torch.Tensor]) -> tuple[float, ...]:
        """What the loss of each output is multiplied with: see `supervision_weights`; further ones by their own."""
        kinds = self._what_for(outputs)
        usual = [logits.shape[2:] for logits, auxiliary in zip(outputs, kinds, strict=True) if auxiliary is None]
        return (
            *supervision_weights(usual),
            *(auxiliary.weight for auxiliary in kinds if auxiliary is not None),
        )

    def _what_for(self, outputs: Sequence[torch.Tensor]) -> tuple[AuxiliaryOutput | None, ...]:
        """What each output stands for: None for the labels."""
        auxiliary_outputs = self.auxiliary_outputs if len(outputs) > 1 else ()
        return (*[None] * (len(outputs) - len(auxiliary_outputs)), *auxiliary_outputs)

    def at_one_resolution(
        self, logits: torch.Tensor, labels: torch.Tensor, unknown: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of logits (n, outputs, *size) and labels on the same grid, float32."""
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
    """The loss that an installed package offers. Of several ranks each counts by the number of its patches.

    Args:
        custom: Its name and settings.
        logits: Shape (n, outputs, *size).
        ground_truth: On the same grid.
        ranks: See `Loss`.

    Raises:
        UsageError: It is no scalar, or not installed.
    """
    loss: object = find_loss(custom.name)(logits, ground_truth, custom.given)
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise UsageError(f"the loss {custom.name!r} is {found}, not a tensor without axes", "mend that package")
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
    """Minus the mean overlap of the structures, between -1 (perfect) and 0.

    "dice" is soft Dice. "squared_dice" has squares below the line. Source: Milletari et al. 2016, V-Net. "tversky"
    weighs false positives and false negatives apart. Source: Salehi et al. 2017, Tversky loss.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: On the same grid.
        settings: Which overlap.
        batch_dice: See `Loss`.
        ranks: See `Loss`.
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
        hits, predicted, actual = ranks.pool(torch.stack([hits.sum(0), predicted.sum(0), actual.sum(0)]))
    if settings.overlap == "tversky":
        wrong = settings.false_positives * (predicted - hits) + settings.false_negatives * (actual - hits)
        overlap = (hits + SMOOTH) / (hits + wrong + SMOOTH)
    else:
        overlap = (2 * hits + SMOOTH) / (predicted + actual + SMOOTH).clamp_min(1e-8)
    if batch_dice:
        known = ranks.all_reduce(known.sum(0)) > 0
        return ranks.share_of(-(overlap * known).sum() / known.sum().clamp_min(1))
    return -(overlap * known).sum() / ranks.all_reduce(known.sum()).clamp_min(1)


def voxelwise_loss(
    logits: torch.Tensor, ground_truth: GroundTruth, settings: LossSettings, ranks: Ranks = ALONE
) -> torch.Tensor:
    """Cross entropy, or a form of it, averaged over voxels; binary, and over structures too, if they may overlap.

    "focal" plays down what is certain already. Source: Lin et al. 2017, focal loss. "top_k" averages over the worst
    share of the voxels; those of each rank, which all count alike. Source: the reference method's variant.

    Args:
        logits: Shape (n, outputs, *size).
        ground_truth: On the same grid.
        settings: Which form, and how much each output weighs.
        ranks: See `Loss`.
    """
    if (
        settings.voxelwise == "cross_entropy"
        and ground_truth.exclusive
        and ground_truth.counted is None
        and ranks.alone
    ):
        weight = None if settings.class_weights is None else logits.new_tensor(settings.class_weights)
        return F.cross_entropy(logits, ground_truth.classes, weight=weight)
    losses, weights = _each_voxel(logits, ground_truth, settings)
    if settings.voxelwise == "top_k":
        counted = losses[weights > 0]
        return ranks.share_of(
            counted.topk(max(1, round(settings.top_k_share * len(counted)))).values.mean()
            if len(counted)
            else 0 * losses.sum()
        )
    return (losses * weights).sum() / ranks.all_reduce(weights.sum()).clamp_min(1e-8)


def _each_voxel(
    logits: torch.Tensor, ground_truth: GroundTruth, settings: LossSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy and weight of each voxel, of shape (n, 1, *size), or of each structure of it."""
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
        of_outputs = logits.new_tensor(settings.class_weights)
        spread = of_outputs.reshape(1, -1, *[1] * (logits.ndim - 2))
        weights = weights * (of_outputs[ground_truth.classes].unsqueeze(1) if ground_truth.exclusive else spread)
    return losses, weights


def supervision_weights(sizes: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Weights of outputs by their sizes: halved from one size to the next coarser, the coarsest unused, together 1.

    Outputs of the same size count alike. Decision: so networks that bring the outputs of all levels to full resolution
    train each as much as the others, as UNet++ and UNet 3+ do. Example: sizes of 40, 20, 10 and 5 voxels give 4/7, 2/7,
    1/7, 0; 40, 40 and 40 give 1/3 each. One output has weight 1.
    """
    resolutions = sorted({tuple(size) for size in sizes}, key=prod, reverse=True)
    levels = [resolutions.index(tuple(size)) for size in sizes]
    unused = len(resolutions) - 1 if len(resolutions) > 1 else None
    weights = [0.0 if level == unused else 0.5**level for level in levels]
    return tuple(weight / sum(weights) for weight in weights)


def coarsen(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Labels on the grid of some logits: the voxel at the middle of each coarse one.

    Example: along an axis of 10 voxels coarsened to 5, voxels 1, 3, 5, 7, 9 are taken.
    """
    for axis in range(1, logits.ndim - 1):  # from the last one on, because masks have one axis more
        fine, coarse = labels.shape[-axis], logits.shape[-axis]
        if fine != coarse:
            middle = ((torch.arange(coarse, device=labels.device) + 0.5) * fine / coarse).long()
            labels = labels.index_select(labels.ndim - axis, middle)
    return labels
