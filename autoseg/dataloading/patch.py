"""A patch before it is read: where it lies, and what will happen to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.dataloading.augmentation_parameters import UNCHANGED, AugmentationParameters, draw_parameters
from autoseg.dataloading.cascade_labels import Beyond, DisturbedCase
from autoseg.dataloading.deformation import smooth_field
from autoseg.dataloading.sampling import MirroredCase, PatchSource, choose_start, read_patch, read_source_region
from autoseg.imaging.geometry import Shape
from autoseg.imaging.targets import Targets
from autoseg.networks.architecture import Axes
from autoseg.planning.plan import Configuration
from autoseg.planning.settings import AugmentationSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRegion:
    """One patch to come.

    Attributes:
        case: Where it is read.
        start: Its first voxel, (z, y, x).
        patch_size: Two or three axes; a plane is one slice of the case.
        draw: Its changes.
        unknown: For each structure whether nobody looked for it in the case; empty if all were looked for.
        previous: The structures of the segmentation that a case of a cascade holds beside its labels.
        disturbance: What the changes of that segmentation follow from; None if there are none.
        beyond: What labels become beyond the border of the case, where its mirror image is seen; None if nothing is.
    """

    case: PatchSource
    start: tuple[int, int, int]
    patch_size: Axes
    draw: AugmentationParameters = UNCHANGED
    unknown: tuple[bool, ...] = ()
    previous: Targets | None = None
    disturbance: int | None = None
    beyond: Beyond | None = None

    @property
    def patch(self) -> Shape:
        """Voxels along (z, y, x)."""
        return self.patch_size if len(self.patch_size) == 3 else (1, *self.patch_size)

    def with_changes(
        self, configuration: Configuration, others: Sequence[int], random: np.random.Generator
    ) -> "PatchRegion":
        """The same patch, changed by chance; `others` are the numbers of the other patches of its batch."""
        channels = len(configuration.normalization)
        settings = configuration.augmentation
        draw = draw_parameters(settings, self.patch_size, channels=channels, others=others, random=random)
        disturbance = None if self.previous is None else int(random.integers(2**62))
        return replace(self, draw=draw, disturbance=disturbance)

    def read(self, settings: AugmentationSettings) -> tuple[torch.Tensor, torch.Tensor]:
        """The patch, turned and deformed as drawn: image (c, *patch), float32, and label map (*patch), int16."""
        image, label = read_patch(self._source, self.start, self.patch, self.draw.affine, self._field(settings))
        return (image, label) if len(self.patch_size) == 3 else (image[:, 0], label[0])

    def read_source_region(self, settings: AugmentationSettings) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """What the turned patch is interpolated from, around the same middle: image (c, *axes) and label map (*axes).

        A patch that is not turned is its own surroundings.
        """
        field = self._field(settings)
        image, label = read_source_region(self._source, self.start, self.patch, self.draw.affine, field)
        return (image, label) if len(self.patch_size) == 3 else (image[:, 0], label[0])

    @property
    def _source(self) -> PatchSource:
        case = self.case
        if self.previous is not None and self.disturbance is not None:
            case = DisturbedCase(case=case, targets=self.previous, seed=self.disturbance)
        return case if self.beyond is None else MirroredCase(case=case, mark=self.beyond)

    def _field(self, settings: AugmentationSettings) -> torch.Tensor | None:
        if self.draw.displacements is None:
            return None
        moving = [self.patch_size[axis] for axis in settings.in_plane_axes(len(self.patch_size))]
        return smooth_field(torch.from_numpy(self.draw.displacements), moving, settings.deformation_spacing_voxels)


def place_patch(
    case: PatchSource, configuration: Configuration, *, forced: bool, random: np.random.Generator
) -> tuple[int, int, int]:
    """Draws the first voxel of a patch whose centre, what the network predicts of it, lies as `choose_start` says.

    Example along one axis of 10 voxels, with patches of 12 of which the 4 in the middle are predicted: centres start at
    0 to 6, and so patches at -4 to 2.
    """
    margin, centre = configuration.patches.margin, configuration.centre_size
    flat = (0,) * (3 - len(centre))
    z, y, x = (*(1 for _ in flat), *centre)
    start = choose_start(case, (z, y, x), forced=forced, random=random)
    z, y, x = (first - edge for first, edge in zip(start, (*flat, *margin), strict=True))
    return z, y, x


def find_beyond(configuration: Configuration, targets: Targets) -> Beyond | None:
    """What a network sees beyond the border of a case: nothing, unless it has a margin.

    Args:
        configuration: Of the network.
        targets: Of the dataset.
    """
    if not configuration.patches.has_margin:
        return None
    return Beyond(targets=targets, is_cascade=configuration.previous is not None)


def crop_to_centre(labels: torch.Tensor, margin: Sequence[int]) -> torch.Tensor:
    """What a network with such a margin predicts of labels (n, *patch)."""
    for axis, edge in enumerate(margin, start=1):
        labels = labels.narrow(axis, edge, labels.shape[axis] - 2 * edge)
    return labels
