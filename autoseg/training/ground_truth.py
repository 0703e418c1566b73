"""The ground truth of a batch of patches, in the form in which losses compare it with the outputs of the network."""

from dataclasses import dataclass

import torch

from autoseg.imaging.label_encoding import TargetLabels
from autoseg.imaging.structure_masks import structure_masks
from autoseg.imaging.targets import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """Ground truth of a batch of patches, on one grid. Custom losses get it too; see `planning.plugins`.

    Attributes:
        classes: Class of each voxel, shape (n, *size), int64, if structures exclude each other: 0 for background and
            for voxels that do not count, else one more than the index of the structure.
        present: Mask of each structure, shape (n, structures, *size), bool.
        counted: Mask of the voxels that were labelled, shape (n, 1 or structures, *size), bool; None if all were.
        unknown: Structures that were not annotated in the case of a patch, shape (n, structures), bool; None if all
            were annotated.
        exclusive: Whether structures exclude each other; see `Targets`.
    """

    classes: torch.Tensor
    present: torch.Tensor
    counted: torch.Tensor | None
    unknown: torch.Tensor | None
    exclusive: bool

    @classmethod
    def of(cls, labels: TargetLabels, targets: Targets, unknown: torch.Tensor | None = None) -> "GroundTruth":
        """Makes the ground truth of labels.

        Args:
            labels: Label map of shape (n, *size) without `OUTSIDE`, or masks of shape (n, structures, *size), bool.
            targets: The structures that the labels stand for.
            unknown: Structures that were not annotated, shape (n, structures), bool.
        """
        counted = None
        if targets.ignore is not None:
            counted = (labels != targets.ignore).unsqueeze(1)
        present = labels if labels.dtype == torch.bool else structure_masks(labels, targets.structures.values())
        if unknown is not None and not targets.exclusive:
            looked_for = ~unknown.reshape(*unknown.shape, *[1] * (present.ndim - 2))
            counted = looked_for if counted is None else looked_for & counted
        return cls(
            classes=_find_classes(labels, targets) if targets.exclusive else labels,
            present=present,
            counted=counted,
            unknown=unknown,
            exclusive=targets.exclusive,
        )


def merge_unknown(logits: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
    """Merges the logits of structures that were not annotated into that of the background.

    Where only the liver was labelled, a voxel of "background" may be spleen: its probability is that of background and
    spleen together. Source: Shi et al. 2021, marginal loss.

    Args:
        logits: Logits of a softmax, shape (n, outputs, *size), background first.
        unknown: Structures that were not annotated, shape (n, structures), bool.

    Returns:
        Logits of the same shape; unknown structures have the logit minus infinity.
    """
    spread = unknown.reshape(*unknown.shape, *[1] * (logits.ndim - 2))
    background, structures = logits[:, :1], logits[:, 1:]
    merged = torch.logsumexp(
        torch.cat([background, structures.masked_fill(~spread, -torch.inf)], dim=1), dim=1, keepdim=True
    )
    return torch.cat([merged, structures.masked_fill(spread, -torch.inf)], dim=1)


def _find_classes(labels: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Returns labels of exclusive structures, in the order of the outputs, and 0 where voxels do not count, int64.

    Cross entropy needs int64; patches come with 16 bits, which are copied and compared faster.
    """
    return (labels if targets.ignore is None else torch.where(labels == targets.ignore, 0, labels)).long()
