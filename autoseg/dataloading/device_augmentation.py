"""Augmentation of a whole batch at once, on the device of the network.

The threads that prepare batches draw parameters, read, and turn the parameters into tensors; for a patch that will be
warped they read its source region. All random numbers are drawn on the CPU, so that they are the same on every device,
and the CPU knows without asking the device which patches a change applies to. Each change does what its counterpart in
`augmentation` does, written for a batch: in few large operations, because on a GPU each has a cost of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.dataloading.augmentation import change_contrast, change_gamma, clear_outside
from autoseg.dataloading.batch_changes import (
    BatchChanges,
    ChannelAmounts,
    Flip,
    LineFilter,
    Warping,
    prepare_changes,
    prepare_warping,
)
from autoseg.dataloading.deformation import smooth_field
from autoseg.dataloading.histogram_matching import match_histograms
from autoseg.dataloading.label_swaps import swap_labels
from autoseg.dataloading.patch import PatchRegion
from autoseg.dataloading.warping import warp
from autoseg.imaging.label_encoding import TargetLabels, encode_targets
from autoseg.imaging.targets import OUTSIDE
from autoseg.networks.architecture import Axes
from autoseg.planning.settings import AugmentationSettings
from autoseg.runtime.copy_ahead import copy_ahead

SourceRegion = tuple[NDArray[np.float32], NDArray[np.integer]]
"""Image and label map that a patch is interpolated from."""

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Changes channels (m, *patch) by amounts (m, 1, ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaugmentedBatch:
    """The n patches of a batch as they were read, and their augmentation, as tensors on one device.

    Attributes:
        plain: Images (n - k, c, *patch) and labels (n - k, *patch) of the patches that are not warped.
        plain_index: Their indices in the batch, shape (n - k,).
        to_warp: Images (k, c, *axes) and labels (k, *axes) of the source regions of the k patches that are rotated,
            scaled or deformed; zero and `OUTSIDE` beyond what was read.
        warping: How these are warped; None if no patch is.
        changes: The changes of all n patches.
        cleared: Indices of the channels that are zero outside the cases.
    """

    plain: tuple[torch.Tensor, torch.Tensor]
    plain_index: torch.Tensor
    to_warp: tuple[torch.Tensor, torch.Tensor]
    warping: Warping | None
    changes: BatchChanges
    cleared: tuple[int, ...]

    def augment(self, device: torch.device) -> tuple[torch.Tensor, TargetLabels]:
        """Augments the patches on a device, to which they are copied unless they are there already.

        Returns:
            Images (n, c, *patch) and labels (n, *patch), as a `Batch` holds them.
        """
        if self.plain[0].device.type != device.type:
            return copy_ahead(self, device).finish().augment(device)
        images, labels = self._assemble()
        images = _match(images, labels, self.changes.matched)
        _change_intensities(images, self.changes)
        _mirror(images, labels, self.changes.flips)
        clear_outside(images, labels, self.cleared)
        return images, encode_targets(labels)

    def _assemble(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns new images and labels in the order of the batch, after those that are to be warped were."""
        if self.warping is None:
            images, labels = self.plain
            return images.clone(), labels.clone()
        warped = _warp(self.to_warp, self.warping)
        if not len(self.plain_index):
            return warped
        images, labels = (
            torch.empty((len(plain) + len(new), *plain.shape[1:]), dtype=plain.dtype, device=plain.device)
            .index_copy_(0, self.plain_index, plain)
            .index_copy_(0, self.warping.index, new)
            for plain, new in zip(self.plain, warped, strict=True)
        )
        return images, labels


def stack_unaugmented(
    regions: Sequence[PatchRegion],
    sources: Sequence[SourceRegion],
    settings: AugmentationSettings,
    cleared: Sequence[int],
) -> UnaugmentedBatch:
    """Stacks the patches of a batch for a device to augment, on the CPU.

    Args:
        regions: The patches, all of one size.
        sources: What `PatchRegion.read_source_region` returned for each patch.
        settings: Augmentation settings of the plan.
        cleared: Indices of the channels that are zero outside the cases.
    """
    patch, channels, parameters = regions[0].patch_size, len(sources[0][0]), [region.augmentation for region in regions]
    plain = [number for number, params in enumerate(parameters) if not params.is_warped]
    to_warp = [source for source, params in zip(sources, parameters, strict=True) if params.is_warped]
    stacked = _stack(to_warp, channels, patch)
    return UnaugmentedBatch(
        plain=_stack([sources[number] for number in plain], channels, patch),
        plain_index=torch.tensor(plain, dtype=torch.int64),
        to_warp=stacked,
        warping=prepare_warping(parameters, settings, patch, stacked[1].shape[1:]),
        changes=prepare_changes(parameters, settings, patch, channels),
        cleared=tuple(cleared),
    )


def _stack(sources: Sequence[SourceRegion], channels: int, patch: Axes) -> tuple[torch.Tensor, torch.Tensor]:
    """Stacks images and label maps of at least the size of the patch, padded about their centres to one size."""
    sizes = [max(size) for size in zip(patch, *(label.shape for _, label in sources), strict=True)]
    images = np.zeros((len(sources), channels, *sizes), dtype=np.float32)
    labels = np.full((len(sources), *sizes), OUTSIDE, dtype=np.int16)
    for number, (image, label) in enumerate(sources):
        centre = tuple(_central_slice(whole, size) for whole, size in zip(sizes, label.shape, strict=True))
        images[number][(slice(None), *centre)] = image
        labels[number][centre] = label
    return torch.from_numpy(images), torch.from_numpy(labels)


def _central_slice(whole: int, size: int) -> slice:
    """Returns the middle voxels of an axis; both sizes are even, or both are odd."""
    first = (whole - size) // 2
    return slice(first, first + size)


def _warp(source_regions: tuple[torch.Tensor, torch.Tensor], warping: Warping) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = source_regions
    field = None if warping.displacements is None else smooth_field(warping.displacements, warping.splines)
    return warp(images, labels, grid=warping.grid, field=field)


def _match(
    images: torch.Tensor, labels: torch.Tensor, matched: tuple[torch.Tensor, torch.Tensor] | None
) -> torch.Tensor:
    """Matches the histograms of patches to those that other patches of the batch had at first."""
    if matched is None:
        return images
    inside = (labels != OUTSIDE)[:, None].expand_as(images)
    both = [tensor.index_select(0, index).flatten(0, 1) for tensor in (images, inside) for index in matched]
    channels = match_histograms(*both)
    return images.index_copy(0, matched[0], channels.reshape(len(matched[0]), *images.shape[1:]))


def _change_intensities(images: torch.Tensor, changes: BatchChanges) -> None:
    """Changes the intensities of all patches in place, in the order of `augmentation.change_intensities`."""
    if changes.noise is not None:
        images.index_add_(0, *changes.noise)
    _filter_lines(images, changes.blur)
    if changes.brightness is not None:
        images.mul_(changes.brightness)
    _change_chosen(images, changes.contrast, change_contrast)
    _filter_lines(images, changes.resolution)
    _change_chosen(
        images, changes.gamma_inverted, lambda channels, exponent: change_gamma(channels.neg_(), exponent).neg_()
    )
    _change_chosen(images, changes.gamma, change_gamma)
    if changes.missing is not None:
        images.view(-1, *images.shape[2:]).index_fill_(0, changes.missing, 0.0)


def _change_chosen(images: torch.Tensor, chosen: ChannelAmounts | None, change: Change) -> None:
    """Changes the patches that have amounts, one per channel, in place."""
    if chosen is not None:
        patches = images.index_select(0, chosen.index)
        changed = change(patches.flatten(0, 1), chosen.amounts)
        images.index_copy_(0, chosen.index, changed.reshape(patches.shape))


def _filter_lines(images: torch.Tensor, line_filter: LineFilter | None) -> None:
    """Multiplies each line of voxels of some channels along each axis by a matrix, in place."""
    if line_filter is None:
        return
    channels = images.view(-1, *images.shape[2:])  # the same memory
    selected = channels.index_select(0, line_filter.index)
    for axis, matrices in enumerate(line_filter.matrices, start=1):
        if matrices is not None:
            lines = selected.movedim(axis, 1)
            mixed = matrices @ lines.flatten(2)
            selected = mixed.reshape(lines.shape).movedim(1, axis)
    channels.index_copy_(0, line_filter.index, selected)


def _mirror(images: torch.Tensor, labels: torch.Tensor, flips: Sequence[Flip]) -> None:
    """Flips patches along their axes, in place, and swaps the labels of structures that change sides."""
    for flip in flips:
        images.index_copy_(0, flip.index, images.index_select(0, flip.index).flip(flip.axis + 2))
        flipped = labels.index_select(0, flip.index).flip(flip.axis + 1)
        if flip.partners is not None:
            flipped = swap_labels(flipped, flip.partners)
        labels.index_copy_(0, flip.index, flipped)
