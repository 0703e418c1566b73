"""Augmentation of a whole batch at once, on the device of the network.

The threads that prepare batches only draw parameters and read; for a patch that will be warped they read its source
region. All random numbers are drawn on the CPU, so that they are the same on every device, and the CPU knows without
asking the device which patches a change applies to. Each change does what its counterpart in `augmentation` does,
written for a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.dataloading.augmentation import (
    as_column,
    change_contrast,
    change_gamma,
    clear_outside,
    make_noise,
    swap_labels,
)
from autoseg.dataloading.augmentation_parameters import Amounts, AugmentationParameters
from autoseg.dataloading.deformation import smooth_field
from autoseg.dataloading.filter_matrices import blur_matrices, coarsening_matrices
from autoseg.dataloading.histogram_matching import match_histograms
from autoseg.dataloading.patch import PatchRegion
from autoseg.dataloading.warping import warp
from autoseg.imaging.label_encoding import TargetLabels, encode_targets
from autoseg.imaging.targets import OUTSIDE
from autoseg.networks.architecture import Axes
from autoseg.planning.settings import AugmentationSettings
from autoseg.runtime.device import copy_to

SourceRegion = tuple[NDArray[np.float32], NDArray[np.integer]]
"""Image and label map that a patch is interpolated from."""

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Changes channels (m, *patch) by amounts (m, 1, ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaugmentedBatch:
    """The n patches of a batch as they were read, and their augmentation.

    Attributes:
        plain: Images (n - k, c, *patch) and labels (n - k, *patch) of the patches that are not warped.
        to_warp: Images (k, c, *axes) and labels (k, *axes) of the source regions of the k patches that are rotated,
            scaled or deformed; zero and `OUTSIDE` beyond what was read.
        noise: Noise of the h patches that get some, shape (h, c, *patch).
        parameters: Changes of all n patches, in the order of the batch.
        settings: Augmentation settings of the plan.
        patch_size: Size of the patches along two or three axes, in voxels.
        cleared: Indices of the channels that are zero outside the cases.
    """

    plain: tuple[torch.Tensor, torch.Tensor]
    to_warp: tuple[torch.Tensor, torch.Tensor]
    noise: torch.Tensor
    parameters: Sequence[AugmentationParameters]
    settings: AugmentationSettings
    patch_size: Axes
    cleared: Sequence[int]

    def augment(self, device: torch.device) -> tuple[torch.Tensor, TargetLabels]:
        """Augments the patches on a device.

        Returns:
            Images (n, c, *patch) and labels (n, *patch), as a `Batch` holds them.
        """
        images, labels = self._assemble(device)
        images = _match(images, labels, self.parameters)
        _change_intensities(images, self.parameters, self.settings.in_plane_axes(len(self.patch_size)), self.noise)
        _mirror(images, labels, self.parameters, self.settings)
        clear_outside(images, labels, self.cleared)
        return images, encode_targets(labels)

    def _assemble(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies all patches to the device in the order of the batch, and warps those that are to be warped."""
        warped = [number for number, params in enumerate(self.parameters) if params.is_warped]
        plain = [number for number, params in enumerate(self.parameters) if not params.is_warped]
        parts = [(plain, [copy_to(part, device) for part in self.plain])]
        if warped:
            parameters = [self.parameters[number] for number in warped]
            source_regions = [copy_to(part, device) for part in self.to_warp]
            parts.append((warped, list(_warp(source_regions, parameters, self.settings, self.patch_size))))
        order = _index(np.argsort([number for numbers, _ in parts for number in numbers]), device)
        images, labels = (torch.cat([pair[which] for _, pair in parts]).index_select(0, order) for which in (0, 1))
        return images, labels


def stack_unaugmented(
    regions: Sequence[PatchRegion],
    sources: Sequence[SourceRegion],
    settings: AugmentationSettings,
    cleared: Sequence[int],
) -> UnaugmentedBatch:
    """Stacks the patches of a batch for a device to augment.

    Args:
        regions: The patches, all of one size.
        sources: What `PatchRegion.read_source_region` returned for each patch.
        settings: Augmentation settings of the plan.
        cleared: Indices of the channels that are zero outside the cases.
    """
    patch, channels, parameters = regions[0].patch_size, len(sources[0][0]), [region.augmentation for region in regions]
    return UnaugmentedBatch(
        plain=_stack(
            [source for source, params in zip(sources, parameters, strict=True) if not params.is_warped],
            channels,
            patch,
        ),
        to_warp=_stack(
            [source for source, params in zip(sources, parameters, strict=True) if params.is_warped], channels, patch
        ),
        noise=_make_noise(parameters, (channels, *patch)),
        parameters=parameters,
        settings=settings,
        patch_size=patch,
        cleared=cleared,
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


def _make_noise(parameters: Sequence[AugmentationParameters], shape: Sequence[int]) -> torch.Tensor:
    noise = [make_noise(params, shape) for params in parameters if params.noise_std is not None]
    return torch.stack(noise) if noise else torch.zeros(0, *shape)


def _warp(
    source_regions: Sequence[torch.Tensor],
    parameters: Sequence[AugmentationParameters],
    settings: AugmentationSettings,
    patch: Axes,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Warps patches; one without rotation and scaling gets the identity matrix, one without deformation zeros."""
    images, labels = source_regions
    identity = np.eye(len(patch))
    matrices = np.stack([identity if params.affine is None else params.affine for params in parameters])
    field = None
    displacements = [params.displacements for params in parameters if params.displacements is not None]
    if displacements:
        zeros = np.zeros_like(displacements[0])
        points = np.stack([zeros if params.displacements is None else params.displacements for params in parameters])
        deformed = [patch[axis] for axis in settings.in_plane_axes(len(patch))]
        field = smooth_field(
            copy_to(torch.from_numpy(points), images.device), deformed, settings.deformation_spacing_voxels
        )
    on_device = copy_to(torch.from_numpy(matrices).float(), images.device)
    return warp(images, labels, patch=patch, matrices=on_device, field=field)


def _match(images: torch.Tensor, labels: torch.Tensor, parameters: Sequence[AugmentationParameters]) -> torch.Tensor:
    """Matches the histograms of patches to those that other patches of the batch had at first."""
    pairs = [(number, params.partner) for number, params in enumerate(parameters) if params.partner is not None]
    if not pairs:
        return images
    matched, partners = (_index(numbers, images.device) for numbers in zip(*pairs, strict=True))
    inside = (labels != OUTSIDE)[:, None].expand_as(images)
    both = [
        tensor.index_select(0, indices).flatten(0, 1) for tensor in (images, inside) for indices in (matched, partners)
    ]
    channels = match_histograms(*both)
    return images.index_copy(0, matched, channels.reshape(len(pairs), *images.shape[1:]))


def _change_intensities(
    images: torch.Tensor, parameters: Sequence[AugmentationParameters], axes: Sequence[int], noise: torch.Tensor
) -> None:
    """Changes the intensities of all patches in place, in the order of `augmentation.change_intensities`."""
    noisy = [number for number, params in enumerate(parameters) if params.noise_std is not None]
    if noisy:
        images.index_add_(0, _index(noisy, images.device), copy_to(noise, images.device))
    patch = images.shape[2:]
    _apply_matrices(images, [params.blur_sigmas for params in parameters], partial(blur_matrices, patch))
    _change_chosen(images, [params.brightness for params in parameters], torch.mul)
    _change_chosen(images, [params.contrast for params in parameters], change_contrast)
    _apply_matrices(images, [params.resolution for params in parameters], partial(coarsening_matrices, patch, axes))
    _change_chosen(
        images,
        [params.gamma_inverted for params in parameters],
        lambda channels, exponent: change_gamma(channels.neg_(), exponent).neg_(),
    )
    _change_chosen(images, [params.gamma for params in parameters], change_gamma)


def _change_chosen(images: torch.Tensor, amounts: Sequence[Amounts | None], change: Change) -> None:
    """Changes the patches that have amounts, one per channel, in place."""
    chosen = [(number, amount) for number, amount in enumerate(amounts) if amount is not None]
    if not chosen:
        return
    index = _index([number for number, _ in chosen], images.device)
    patches = images.index_select(0, index)
    column = as_column(np.concatenate([amount for _, amount in chosen]), patches.flatten(0, 1))
    images.index_copy_(0, index, change(patches.flatten(0, 1), column).reshape(patches.shape))


def _apply_matrices(
    images: torch.Tensor,
    amounts: Sequence[Amounts | None],
    make: Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32] | None]],
) -> None:
    """Multiplies each line of voxels along each axis by a matrix, in place.

    Args:
        images: Images, shape (n, c, *patch).
        amounts: Amounts of each patch, one per channel; None for a patch that stays as it is.
        make: Returns the matrices of a channel, given its amount: one (size, size) for each axis, None for an axis that
            stays as it is; an empty list for a channel that stays as it is.
    """
    channel_matrices = [
        (number * images.shape[1] + channel, matrices)
        for number, amount in enumerate(amounts)
        if amount is not None
        for channel, matrices in enumerate(map(make, amount))
        if matrices
    ]
    if not channel_matrices:
        return
    index = _index([number for number, _ in channel_matrices], images.device)
    channels = images.view(-1, *images.shape[2:])  # the same memory
    selected = channels.index_select(0, index)
    for axis, axis_matrices in enumerate(zip(*(matrices for _, matrices in channel_matrices), strict=True), start=1):
        present = [matrix for matrix in axis_matrices if matrix is not None]
        if present:
            lines = selected.movedim(axis, 1)
            mixed = copy_to(torch.from_numpy(np.stack(present)), images.device) @ lines.flatten(2)
            selected = mixed.reshape(lines.shape).movedim(1, axis)
    channels.index_copy_(0, index, selected)


def _mirror(
    images: torch.Tensor,
    labels: torch.Tensor,
    parameters: Sequence[AugmentationParameters],
    settings: AugmentationSettings,
) -> None:
    """Flips patches along their axes, in place, and swaps the labels of structures that change sides."""
    for axis in settings.mirror_axes:
        flipped = [number for number, params in enumerate(parameters) if axis in params.mirrored]
        if flipped:
            index = _index(flipped, images.device)
            images.index_copy_(0, index, images.index_select(0, index).flip(axis + 2))
            flipped_labels = labels.index_select(0, index).flip(axis + 1)
            if axis == settings.swap_axis:
                flipped_labels = swap_labels(flipped_labels, settings.swapped_labels)
            labels.index_copy_(0, index, flipped_labels)


def _index(numbers: Sequence[int] | NDArray[np.integer], device: torch.device) -> torch.Tensor:
    return copy_to(torch.as_tensor(numbers, dtype=torch.int64), device)
