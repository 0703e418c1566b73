"""What is true of the voxels that a network sees, in the form in which its outputs are compared with it."""

from dataclasses import dataclass

import torch

from autoseg.imaging.label_encoding import TargetLabels
from autoseg.imaging.structure_masks import structure_masks
from autoseg.imaging.targets import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """What a batch of patches holds, on one grid. Losses that are not built in get it too; see `extensions`.

    Attributes:
        classes: Shape (n, *size), int64, if structures exclude each other: 0 for background and for what does not
            count, else one more than the number of the structure.
        present: Shape (n, structures, *size), bool: where each structure is.
        counted: Shape (n, 1 or structures, *size), bool: what was labelled, if not everything was.
        unknown: Shape (n, structures), bool: structures that nobody looked for, if there are any.
        exclusive: See `Targets`.
    """

    classes: torch.Tensor
    present: torch.Tensor
    counted: torch.Tensor | None
    unknown: torch.Tensor | None
    exclusive: bool

    @classmethod
    def of(cls, labels: TargetLabels, targets: Targets, unknown: torch.Tensor | None = None) -> "GroundTruth":
        """Reads labels.

        Args:
            labels: Shape (n, *size) of a label map, without `OUTSIDE`, or (n, structures, *size) of masks, bool.
            targets: What they mean.
            unknown: See there.
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
    """Logits of a softmax in which the background stands for all that nobody looked for as well.

    Where only the liver was labelled, a voxel of "background" may be spleen: its probability is that of background and
    spleen together. Source: Shi et al. 2021, marginal loss.

    Args:
        logits: Shape (n, outputs, *size).
        unknown: Shape (n, structures).

    Returns:
        The same shape; unknown structures have the logit minus infinity.
    """
    spread = unknown.reshape(*unknown.shape, *[1] * (logits.ndim - 2))
    background, structures = logits[:, :1], logits[:, 1:]
    merged = torch.logsumexp(
        torch.cat([background, structures.masked_fill(~spread, -torch.inf)], dim=1), dim=1, keepdim=True
    )
    return torch.cat([merged, structures.masked_fill(spread, -torch.inf)], dim=1)


def _find_classes(labels: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Labels of exclusive structures, which are numbered in the order of the outputs, without what does not count."""
    return labels if targets.ignore is None else torch.where(labels == targets.ignore, 0, labels)
