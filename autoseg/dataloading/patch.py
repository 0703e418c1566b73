"""A training patch before it is read: its place in a case, and its augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.dataloading.augmentation_parameters import (
    UNCHANGED,
    AugmentationParameters,
    draw_parameters,
    number_repeated,
)
from autoseg.dataloading.cascade_labels import Beyond, DisturbedCase
from autoseg.dataloading.deformation import smooth_field, spline_tensors
from autoseg.dataloading.neighbouring_slices import SliceStack
from autoseg.dataloading.sampling import MirroredCase, PatchSource, choose_start, read_patch, read_source_region
from autoseg.dataloading.soft_targets import SoftlyLabelledCase, SoftSource
from autoseg.imaging.geometry import Shape
from autoseg.imaging.targets import Targets
from autoseg.networks.architecture import Axes
from autoseg.planning.plan import Configuration
from autoseg.planning.settings import AugmentationSettings
from autoseg.preprocessing.foreground import VoxelIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRegion:
    """The place of one patch in a case, and the augmentation of the patch.

    Attributes:
        case: The case that the patch is read from.
        start: First voxel of the patch, (z, y, x).
        patch_size: Size of the patch along two or three axes; a patch of two axes is one slice of the case.
        augmentation: Random changes of the patch.
        unknown: For each structure, whether it is not annotated in the case; empty if all structures are annotated.
        previous: Structures of the coarse segmentation that a case of a cascade holds beside its labels.
        disturbance: Seed of the random changes of that segmentation; None if it stays as it is.
        beyond: Gives the labels of voxels beyond the border of the case, where its mirror image is read; None if
            nothing is read there.
        neighbours: Number of slices on each side that a patch of one slice holds as further channels.
        soft: Probabilities by a teacher, which the image holds as its last channels; None without one.
    """

    case: PatchSource
    start: tuple[int, int, int]
    patch_size: Axes
    augmentation: AugmentationParameters = UNCHANGED
    unknown: tuple[bool, ...] = ()
    previous: Targets | None = None
    disturbance: int | None = None
    beyond: Beyond | None = None
    neighbours: int = 0
    soft: SoftSource | None = None

    @property
    def patch(self) -> Shape:
        """Size of the patch along (z, y, x), in voxels."""
        return self.patch_size if len(self.patch_size) == 3 else (1, *self.patch_size)

    def with_augmentation(
        self, configuration: Configuration, others: Sequence[int], random: np.random.Generator
    ) -> "PatchRegion":
        """Returns the same patch with a random augmentation.

        Args:
            configuration: The configuration, whose augmentation settings apply.
            others: Indices of the other patches of the batch, for histogram matching.
            random: Source of every random number.
        """
        repeats = configuration.inputs_of_scan
        settings = configuration.augmentation
        augmentation = draw_parameters(
            settings,
            self.patch_size,
            channels=len(repeats),
            others=others,
            random=random,
            missing=self.case.missing_channels,
        )
        disturbance = None if self.previous is None else int(random.integers(2**62))
        augmentation = augmentation.repeat_channels(repeats)
        return replace(self, augmentation=augmentation, disturbance=disturbance)

    def read(self, settings: AugmentationSettings) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads the patch, rotated, scaled and deformed by its augmentation.

        Returns:
            Image (c, *patch), float32, and label map (*patch), int16.
        """
        image, label = read_patch(self._source, self.start, self.patch, self.augmentation.affine, self._field(settings))
        return (image, label) if len(self.patch_size) == 3 else (image[:, 0], label[0])

    def read_source_region(self, settings: AugmentationSettings) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Reads the part of the case that the rotated, scaled or deformed patch is interpolated from.

        It has the same centre as the patch. For a patch that is not interpolated it is the patch itself.

        Returns:
            Image (c, *axes) and label map (*axes).
        """
        field = self._field(settings)
        image, label = read_source_region(self._source, self.start, self.patch, self.augmentation.affine, field)
        return (image, label) if len(self.patch_size) == 3 else (image[:, 0], label[0])

    @property
    def _source(self) -> PatchSource:
        case = self.case
        if self.previous is not None and self.disturbance is not None:
            case = DisturbedCase(case=case, targets=self.previous, seed=self.disturbance)
        if self.neighbours:
            case = SliceStack(case=case, neighbours=self.neighbours)
        if self.soft is not None:
            case = SoftlyLabelledCase(case=case, soft=self.soft)
        return case if self.beyond is None else MirroredCase(case=case, mark=self.beyond)

    def _field(self, settings: AugmentationSettings) -> torch.Tensor | None:
        """Returns the displacement of each voxel along the deformed axes; None without deformation."""
        if self.augmentation.displacements is None:
            return None
        deformed = [self.patch_size[axis] for axis in settings.in_plane_axes(len(self.patch_size))]
        splines = spline_tensors(deformed, settings.deformation_spacing_voxels)
        return smooth_field(torch.from_numpy(self.augmentation.displacements), splines)


def place_patch(
    case: PatchSource,
    configuration: Configuration,
    *,
    forced: bool,
    random: np.random.Generator,
    voxel: VoxelIndex | None = None,
) -> tuple[int, int, int]:
    """Draws the first voxel of a patch whose centre, which the network predicts, lies as `choose_start` says.

    Example along one axis of 10 voxels, with patches of 12 of which the 4 in the middle are predicted: centres start at
    0 to 6, and so patches at -4 to 2.

    Args:
        case: The case that the patch is read from.
        configuration: Gives the size of the patch, and its margin around the centre.
        forced: Whether the centre is placed on foreground.
        random: Source of every random number.
        voxel: Voxel that the centre is placed on; None draws one.
    """
    margin, centre = configuration.patches.margin, configuration.centre_size
    flat = (0,) * (3 - len(centre))
    z, y, x = (*(1 for _ in flat), *centre)
    start = choose_start(case, (z, y, x), forced=forced, random=random, voxel=voxel)
    z, y, x = (first - edge for first, edge in zip(start, (*flat, *margin), strict=True))
    return z, y, x


def find_cleared(configuration: Configuration) -> list[int]:
    """Returns the indices of the channels that are zero outside the cases, by their normalization.

    Neighbouring slices are zero where the slice in their middle lies outside.
    """
    cleared = [channel for channel, scheme in enumerate(configuration.normalization) if scheme.only_nonzero]
    return number_repeated(cleared, configuration.inputs_of_scan)


def find_beyond(configuration: Configuration, targets: Targets) -> Beyond | None:
    """Returns the function that marks the labels beyond the border of a case.

    Args:
        configuration: The configuration of the network.
        targets: The structures of the dataset.

    Returns:
        None if the network has no margin, so that nothing is read beyond the border.
    """
    if not configuration.patches.has_margin:
        return None
    return Beyond(targets=targets, is_cascade=configuration.previous is not None)


def crop_to_centre(labels: torch.Tensor, margin: Sequence[int]) -> torch.Tensor:
    """Returns the part of labels (n, *patch) that a network with this margin predicts, as a view.

    Example:
        >>> crop_to_centre(torch.arange(6)[None], [2])
        tensor([[2, 3]])
    """
    for axis, edge in enumerate(margin, start=1):
        labels = labels.narrow(axis, edge, labels.shape[axis] - 2 * edge)
    return labels
