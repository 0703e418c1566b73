"""The batch of patches that the loader gives to a training step, and the form that a loader thread prepares it in."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from autoseg.dataloading.shapes import Shapes

if TYPE_CHECKING:
    from autoseg.dataloading.device_augmentation import UnaugmentedBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The patches of one training step.

    Attributes:
        images: Image patches, shape (n, c, *patch), float32. In a cascade there is one more channel per structure,
            which holds the coarse segmentation of that structure.
        labels: `TargetLabels` of shape (n, *centre), int16. The centre is the part of a patch that the network
            predicts, in most networks the whole patch.
        unknown: Structures that are not annotated in the case of each patch, shape (n, structures), bool; None if all
            structures are annotated in all cases.
        regions, skeletons, borders: Shapes of the structures, on the grid of the labels; see `shapes.Shapes`.
        soft: Probability of each structure by a teacher, shape (n, structures, *centre), float32; None without one.
    """

    images: torch.Tensor
    labels: torch.Tensor
    unknown: torch.Tensor | None = None
    regions: torch.Tensor | None = None
    skeletons: torch.Tensor | None = None
    borders: torch.Tensor | None = None
    soft: torch.Tensor | None = None

    @property
    def shapes(self) -> Shapes:
        """The shapes of the structures that the loss needs beside the labels."""
        return Shapes(regions=self.regions, skeletons=self.skeletons, borders=self.borders)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedBatch:
    """A batch as a loader thread prepares it.

    Attributes:
        patches: Augmented patches, or patches that a device is to augment.
        unknown: Structures that are not annotated; see `Batch`.
    """

    patches: "Batch | UnaugmentedBatch"
    unknown: torch.Tensor | None
