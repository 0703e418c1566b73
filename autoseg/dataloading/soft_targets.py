"""Soft targets: the probabilities of a teacher, which a student learns beside the labels.

They are read as further channels of the image, so they are rotated, scaled and deformed exactly as it is, linearly. No
change of intensity touches them; where a patch is flipped, they are, and left and right structures change places.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.dataloading.augmentation_parameters import AugmentationParameters
from autoseg.dataloading.sampling import DerivedCase, PatchSource
from autoseg.imaging.geometry import Box
from autoseg.planning.settings import AugmentationSettings
from autoseg.preprocessing.foreground import Foreground

PatchTensors = tuple[torch.Tensor, torch.Tensor]


class SoftSource(Protocol):
    """The probabilities of the structures in a preprocessed case, of which parts can be read."""

    @property
    def structures(self) -> int:
        """Number of structures, the background not counted."""

    def read(self, box: Box) -> NDArray[np.float32]:
        """Reads the probabilities (structures, z, y, x), 0 to 1, inside a box that lies within the case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftlyLabelledCase(DerivedCase):
    """A case whose image holds the probabilities of a teacher as its last channels.

    Attributes:
        soft: The probabilities, on the grid of the case.
    """

    soft: SoftSource

    @property
    def name(self) -> str:
        """Name of the case."""
        return str(getattr(self.case, "name", "a case in memory"))

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads the image with the probabilities (c + structures, z, y, x), and the label map (z, y, x)."""
        image, label = self.case.read(box)
        return np.concatenate([image, self.soft.read(box)]), label


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledCase(DerivedCase):
    """A scan without labels, for which the segmentation of a teacher stands.

    Attributes:
        labels: The store of that segmentation, on the grid of the scan; its image has no channels.
    """

    labels: PatchSource

    @property
    def name(self) -> str:
        """Name of the case."""
        return str(getattr(self.case, "name", "a case in memory"))

    @property
    def foreground(self) -> Foreground:
        """A sample of the positions of the foreground voxels of the segmentation."""
        return self.labels.foreground

    def read(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads the image (c, z, y, x) and the segmentation (z, y, x)."""
        return self.case.read(box)[0], self.labels.read(box)[1]

    def load_label(self) -> NDArray[np.integer]:
        """Loads the whole segmentation (z, y, x)."""
        return self.labels.load_label()


def split_soft(
    patches: Iterable[PatchTensors], sources: Sequence[SoftSource]
) -> tuple[list[PatchTensors], torch.Tensor | None]:
    """Parts the images of patches from the probabilities in their last channels.

    Args:
        patches: Image (c + structures, *patch) and label map (*patch) of each patch.
        sources: The probabilities of all cases, which have the same structures; empty if patches hold none.

    Returns:
        The patches without probabilities, and these, shape (n, structures, *patch), None without any.

    Example:
        >>> from types import SimpleNamespace
        >>> image, label = torch.arange(6.0).reshape(3, 2), torch.zeros(2)
        >>> [(image_alone, _)], soft = split_soft([(image, label)], [SimpleNamespace(structures=2)])
        >>> image_alone.tolist(), soft.tolist()
        ([[0.0, 1.0]], [[[2.0, 3.0], [4.0, 5.0]]])
    """
    read = list(patches)
    if not sources:
        return read, None
    structures = sources[0].structures
    images = [(image[:-structures], label) for image, label in read]
    return images, torch.stack([image[-structures:] for image, _ in read])


def mirror_soft(
    soft: torch.Tensor | None, parameters: Sequence[AugmentationParameters], settings: AugmentationSettings
) -> None:
    """Flips the probabilities of patches in place, as `augmentation.augment` flips their images.

    Args:
        soft: Shape (n, structures, *patch); None if there are none.
        parameters: Changes of each patch.
        settings: In patches that are flipped along `swap_axis`, the pairs of `swapped_labels` change places. The
            number of a label is then one more than the index of its structure.

    Example:
        >>> soft = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])
        >>> settings = AugmentationSettings(mirror_axes=(0,), swap_axis=0, swapped_labels=((1, 2),))
        >>> mirror_soft(soft, [AugmentationParameters(mirrored=(0,))], settings)
        >>> [[round(value, 1) for value in row] for row in soft[0].tolist()]
        [[0.4, 0.3], [0.2, 0.1]]
    """
    if soft is None:
        return
    order = list(range(soft.shape[1]))
    for first, second in settings.swapped_labels:
        order[first - 1], order[second - 1] = second - 1, first - 1
    for patch, params in zip(soft, parameters, strict=True):
        changed = patch[order] if settings.swap_axis in params.mirrored else patch
        if params.mirrored:
            patch.copy_(changed.flip([axis + 1 for axis in params.mirrored]))


def crop_soft_to_centre(soft: torch.Tensor | None, margin: Sequence[int]) -> torch.Tensor | None:
    """Returns the part of probabilities (n, structures, *patch) that a network with this margin predicts, as a view.

    None stays None.

    Example:
        >>> crop_soft_to_centre(torch.arange(6.0)[None, None], [2]).tolist()
        [[[2.0, 3.0]]]
    """
    if soft is None:
        return None
    for axis, edge in enumerate(margin, start=2):
        soft = soft.narrow(axis, edge, soft.shape[axis] - 2 * edge)
    return soft
