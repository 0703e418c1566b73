"""A patch before it is read: where it lies, and what will happen to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.architecture import Axes
from autoseg.data.deformation import smooth_field
from autoseg.data.draws import UNCHANGED, Draw, draw_changes
from autoseg.data.previous import DisturbedCase
from autoseg.data.sampling import PatchSource, read_patch, read_surroundings
from autoseg.geometry import Shape
from autoseg.plan import Configuration
from autoseg.settings import AugmentationSettings
from autoseg.targets import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One patch to come.

    Attributes:
        case: Where it is read.
        start: Its first voxel, (z, y, x).
        patch_size: Two or three axes; a plane is one slice of the case.
        draw: Its changes.
        unknown: For each structure whether nobody looked for it in the case; empty if all were looked for.
        previous: The structures of the segmentation that a case of a cascade holds beside its labels.
        disturbance: What the changes of that segmentation follow from; None if there are none.
    """

    case: PatchSource
    start: tuple[int, int, int]
    patch_size: Axes
    draw: Draw = UNCHANGED
    unknown: tuple[bool, ...] = ()
    previous: Targets | None = None
    disturbance: int | None = None

    @property
    def patch(self) -> Shape:
        """Voxels along (z, y, x)."""
        return self.patch_size if len(self.patch_size) == 3 else (1, *self.patch_size)

    def with_changes(self, configuration: Configuration, others: Sequence[int], random: np.random.Generator) -> "Cut":
        """The same patch, changed by chance; `others` are the numbers of the other patches of its batch."""
        channels = len(configuration.normalization)
        settings = configuration.augmentation
        draw = draw_changes(settings, self.patch_size, channels=channels, others=others, random=random)
        disturbance = None if self.previous is None else int(random.integers(2**62))
        return replace(self, draw=draw, disturbance=disturbance)

    def read(self, settings: AugmentationSettings) -> tuple[torch.Tensor, torch.Tensor]:
        """The patch, turned and deformed as drawn: image (c, *patch), float32, and label map (*patch), int16."""
        image, label = read_patch(self._source, self.start, self.patch, self.draw.affine, self._field(settings))
        return (image, label) if len(self.patch_size) == 3 else (image[:, 0], label[0])

    def read_surroundings(self, settings: AugmentationSettings) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """What the turned patch is interpolated from, around the same middle: image (c, *axes) and label map (*axes).

        A patch that is not turned is its own surroundings.
        """
        field = self._field(settings)
        image, label = read_surroundings(self._source, self.start, self.patch, self.draw.affine, field)
        return (image, label) if len(self.patch_size) == 3 else (image[:, 0], label[0])

    @property
    def _source(self) -> PatchSource:
        if self.previous is None or self.disturbance is None:
            return self.case
        return DisturbedCase(case=self.case, targets=self.previous, seed=self.disturbance)

    def _field(self, settings: AugmentationSettings) -> torch.Tensor | None:
        if self.draw.displacements is None:
            return None
        moving = [self.patch_size[axis] for axis in settings.moving_axes(len(self.patch_size))]
        return smooth_field(torch.from_numpy(self.draw.displacements), moving, settings.deformation_spacing_voxels)
