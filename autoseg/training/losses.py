"""The training loss: overlap and voxelwise terms, on every resolution that the network predicts.

Source of the usual loss, Dice and cross entropy: the reference method (nnU-Net v2.8.1, training losses), whose golden
values are in the tests. The sources of the other losses stand in their docstrings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from autoseg.dataloading.shapes import NO_SHAPES, Shapes
from autoseg.errors import UsageError
from autoseg.imaging.label_encoding import TargetLabels
from autoseg.imaging.targets import Targets
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.plugins import find_loss
from autoseg.training.auxiliary_loss import auxiliary_loss
from autoseg.training.component_loss import component_loss
from autoseg.training.distillation_loss import distillation_loss
from autoseg.training.ground_truth import GroundTruth, merge_unknown
from autoseg.training.overlap_loss import overlap_loss, skeleton_loss
from autoseg.training.ranks import ALONE, Ranks
from autoseg.training.similarity_loss import similarity_loss
from autoseg.training.voxelwise_loss import voxelwise_loss


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
        soft_weight: Share of the loss that compares with the probabilities of a teacher, where a batch has them.
    """

    targets: Targets
    settings: LossSettings
    batch_dice: bool
    ranks: Ranks = ALONE
    auxiliary_outputs: tuple[AuxiliaryOutput, ...] = ()
    soft_weight: float = 0.0

    def __call__(
        self,
        outputs: Sequence[torch.Tensor],
        labels: torch.Tensor,
        unknown: torch.Tensor | None = None,
        shapes: Shapes = NO_SHAPES,
        soft: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns the weighted sum over all resolutions; the labels are coarsened by nearest neighbour.

        Args:
            outputs: Logits of shape (n, outputs, *size), finest first, followed in training by the auxiliary outputs.
                In evaluation there is a single output, which is compared with the labels.
            labels: Label map of shape (n, *patch), or masks of shape (n, structures, *patch); see `GroundTruth`.
            unknown: Structures that were not annotated in the case of a patch, shape (n, structures), bool.
            shapes: What the terms of components, skeletons and borders need, on the grid of the labels.
            soft: Probability of each structure by a teacher, shape (n, structures, *patch); None without one.

        Returns:
            A scalar.
        """
        total = outputs[0].new_zeros((), dtype=torch.float32)
        for weight, logits, auxiliary in zip(self.weigh(outputs), outputs, self._assign(outputs), strict=True):
            if weight == 0:
                continue
            coarse = labels if auxiliary is not None and auxiliary.is_per_patch else coarsen(labels, logits)
            if auxiliary is None:
                loss = self.at_one_resolution(logits.float(), coarse, unknown, _coarsen_shapes(shapes, logits))
                loss = loss if soft is None else self._with_teacher(loss, logits.float(), coarsen(soft, logits))
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
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        unknown: torch.Tensor | None = None,
        shapes: Shapes = NO_SHAPES,
    ) -> torch.Tensor:
        """Returns the loss of logits (n, outputs, *size), labels and shapes on the same grid, float32."""
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
            borders = _require(shapes.borders, "border_weight") if settings.border_weight else None
            voxelwise = voxelwise_loss(logits, ground_truth, settings, self.ranks, borders)
            total = total + settings.voxelwise_weight * voxelwise
        if settings.similarity_weight:
            total = total + settings.similarity_weight * similarity_loss(logits, ground_truth, self.ranks)
        if settings.component_weight or settings.skeleton_weight:
            total = total + self._loss_of_shapes(logits, ground_truth, shapes)
        return total

    def _with_teacher(self, loss: torch.Tensor, logits: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
        """Returns the weighted mean of the loss by labels and that by the probabilities of a teacher."""
        exclusive, weight = self.targets.exclusive, self.soft_weight
        taught = distillation_loss(logits, soft, exclusive=exclusive, batch_dice=self.batch_dice, ranks=self.ranks)
        return (1 - weight) * loss + weight * taught

    def _loss_of_shapes(self, logits: torch.Tensor, ground_truth: GroundTruth, shapes: Shapes) -> torch.Tensor:
        """Returns the weighted terms of components and skeletons.

        Raises:
            ValueError: The settings have such a term, and the shapes that it needs were not made.
        """
        settings, total = self.settings, logits.new_zeros(())
        if settings.component_weight:
            regions = _require(shapes.regions, "component_weight")
            components = component_loss(logits, ground_truth, regions, settings, self.ranks, shapes.borders)
            total = total + settings.component_weight * components
        if settings.skeleton_weight:
            skeletons = _require(shapes.skeletons, "skeleton_weight")
            recall = skeleton_loss(logits, ground_truth, skeletons, batch_dice=self.batch_dice, ranks=self.ranks)
            total = total + settings.skeleton_weight * recall
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


def _coarsen_shapes(shapes: Shapes, logits: torch.Tensor) -> Shapes:
    """Returns shapes on the grid of some logits, as `coarsen` does with labels."""
    regions, skeletons, borders = (
        None if maps is None else coarsen(maps, logits) for maps in (shapes.regions, shapes.skeletons, shapes.borders)
    )
    return Shapes(regions=regions, skeletons=skeletons, borders=borders)


def _require(shapes: torch.Tensor | None, setting: str) -> torch.Tensor:
    """Returns shapes that a term of the loss needs."""
    if shapes is None:
        raise ValueError(f"the batch lacks the shapes that {setting} needs; see dataloading.shapes")
    return shapes
