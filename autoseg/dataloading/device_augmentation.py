"""Random changes of a whole batch at once, on the device where the network is.

The threads that make batches only draw and read; a patch that will be turned comes with its surroundings. All random
numbers are drawn on the CPU, so that chance is the same on every device, and the CPU knows without asking the device
which patches a row of the table hits. Each row does what its counterpart in `augmentation` does, written for a batch.
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
    exchange_labels,
    make_noise,
)
from autoseg.dataloading.augmentation_parameters import Amounts, AugmentationParameters
from autoseg.dataloading.deformation import smooth_field
from autoseg.dataloading.filter_matrices import blur_matrices, coarsening_matrices
from autoseg.dataloading.histogram_matching import match_histograms
from autoseg.dataloading.patch import PatchRegion
from autoseg.dataloading.warping import turn
from autoseg.errors import UsageError
from autoseg.imaging.label_encoding import TargetLabels, encode_targets
from autoseg.imaging.targets import OUTSIDE
from autoseg.networks.architecture import Axes
from autoseg.planning.plugins import CustomTransform
from autoseg.planning.settings import AugmentationSettings
from autoseg.runtime.device import copy_to

Part = tuple[NDArray[np.float32], NDArray[np.integer]]  # Image and label map
Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # Of channels (m, *patch) by amounts (m, 1, ...)


def augments_on_device(choice: str, device: torch.device, custom: Sequence[CustomTransform] = ()) -> bool:
    """Whether batches are changed on the device of the network, by the user's choice of "auto", "cpu" or "device".

    Decision: "auto" is the device only if it is a CUDA GPU: a CPU that trains has nothing to gain from it, and on an
    Apple GPU nobody has tried it. The plan's `custom` transforms change one patch at a time, on a CPU.

    Raises:
        UsageError: There is no such choice, or the device is an Apple GPU, or there are transforms for a CPU.
    """
    if choice not in ("auto", "cpu", "device"):
        raise UsageError(f"patches cannot be changed on {choice!r}", "choose --augment-on auto, cpu or device")
    if choice == "device" and device.type == "mps":
        raise UsageError("changing patches on an Apple GPU is untested", "choose --augment-on cpu")
    if choice == "device" and custom:
        raise UsageError(f"the transform {custom[0].name!r} changes patches on a CPU only", "choose --augment-on cpu")
    return choice == "device" or (choice == "auto" and device.type == "cuda" and not custom)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedBatch:
    """Patches as they were read, and what is to happen to them.

    Attributes:
        plain: Images (n - k, c, *patch) and labels (n - k, *patch) of the patches that are not turned.
        turned: Surroundings of the k others, (k, c, *axes) and (k, *axes); zero and `OUTSIDE` beyond what was read.
        noise: Of those that get some, (h, c, *patch).
        draws: Changes of all n, in the order of the batch.
        settings: Of the plan.
        patch_size: Two or three axes.
        cleared: Channels that are zero outside the cases.
    """

    plain: tuple[torch.Tensor, torch.Tensor]
    turned: tuple[torch.Tensor, torch.Tensor]
    noise: torch.Tensor
    draws: Sequence[AugmentationParameters]
    settings: AugmentationSettings
    patch_size: Axes
    cleared: Sequence[int]

    def finish(self, device: torch.device) -> tuple[torch.Tensor, TargetLabels]:
        """Changes the patches on a device.

        Returns:
            Images (n, c, *patch) and labels (n, *patch), as a `loader.Batch` holds them.
        """
        images, labels = self._assemble(device)
        images = _match(images, labels, self.draws)
        _change_intensities(images, self.draws, self.settings.in_plane_axes(len(self.patch_size)), self.noise)
        _mirror(images, labels, self.draws, self.settings)
        clear_outside(images, labels, self.cleared)
        return images, encode_targets(labels)

    def _assemble(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Turns what is to be turned, and puts all patches in order on the device."""
        turned = [number for number, draw in enumerate(self.draws) if draw.turned]
        plain = [number for number, draw in enumerate(self.draws) if not draw.turned]
        parts = [(plain, [copy_to(part, device) for part in self.plain])]
        if turned:
            draws = [self.draws[number] for number in turned]
            source_region = [copy_to(part, device) for part in self.turned]
            parts.append((turned, list(_turn(source_region, draws, self.settings, self.patch_size))))
        order = _index(np.argsort([number for numbers, _ in parts for number in numbers]), device)
        images, labels = (torch.cat([pair[which] for _, pair in parts]).index_select(0, order) for which in (0, 1))
        return images, labels


def collect(
    cuts: Sequence[PatchRegion], parts: Sequence[Part], settings: AugmentationSettings, cleared: Sequence[int]
) -> UnfinishedBatch:
    """Puts the patches of a batch together for a device to change.

    Args:
        cuts: The patches, of one size.
        parts: Of each, what `PatchRegion.read_source_region` gave.
        settings: Of the plan.
        cleared: See `UnfinishedBatch`.
    """
    patch, channels, draws = cuts[0].patch_size, len(parts[0][0]), [cut.draw for cut in cuts]
    return UnfinishedBatch(
        plain=_stack([part for part, draw in zip(parts, draws, strict=True) if not draw.turned], channels, patch),
        turned=_stack([part for part, draw in zip(parts, draws, strict=True) if draw.turned], channels, patch),
        noise=_make_noise(draws, (channels, *patch)),
        draws=draws,
        settings=settings,
        patch_size=patch,
        cleared=cleared,
    )


def _stack(parts: Sequence[Part], channels: int, patch: Axes) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts images and label maps of different sizes, all at least that of the patch, on one grid by their middles."""
    sizes = [max(size) for size in zip(patch, *(label.shape for _, label in parts), strict=True)]
    images = np.zeros((len(parts), channels, *sizes), dtype=np.float32)
    labels = np.full((len(parts), *sizes), OUTSIDE, dtype=np.int16)
    for number, (image, label) in enumerate(parts):
        place = tuple(_middle(whole, size) for whole, size in zip(sizes, label.shape, strict=True))
        images[number][(slice(None), *place)] = image
        labels[number][place] = label
    return torch.from_numpy(images), torch.from_numpy(labels)


def _middle(whole: int, size: int) -> slice:
    """The middle voxels of an axis; both sizes are even, or both are odd."""
    first = (whole - size) // 2
    return slice(first, first + size)


def _make_noise(draws: Sequence[AugmentationParameters], shape: Sequence[int]) -> torch.Tensor:
    noise = [make_noise(draw, shape) for draw in draws if draw.noise_std is not None]
    return torch.stack(noise) if noise else torch.zeros(0, *shape)


def _turn(
    source_region: Sequence[torch.Tensor],
    draws: Sequence[AugmentationParameters],
    settings: AugmentationSettings,
    patch: Axes,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotates, scales and deforms patches; those that are not rotated, or not deformed, get an identity or zeros."""
    images, labels = source_region
    still = np.eye(len(patch))
    matrices = np.stack([still if draw.affine is None else draw.affine for draw in draws])
    field = None
    moved = [draw.displacements for draw in draws if draw.displacements is not None]
    if moved:
        rest = np.zeros_like(moved[0])
        points = np.stack([rest if draw.displacements is None else draw.displacements for draw in draws])
        moving = [patch[axis] for axis in settings.in_plane_axes(len(patch))]
        field = smooth_field(
            copy_to(torch.from_numpy(points), images.device), moving, settings.deformation_spacing_voxels
        )
    on_device = copy_to(torch.from_numpy(matrices).float(), images.device)
    return turn(images, labels, patch=patch, matrices=on_device, field=field)


def _match(images: torch.Tensor, labels: torch.Tensor, draws: Sequence[AugmentationParameters]) -> torch.Tensor:
    """Gives patches the intensities of others, all as they were before."""
    pairs = [(number, draw.partner) for number, draw in enumerate(draws) if draw.partner is not None]
    if not pairs:
        return images
    own, partners = (_index(numbers, images.device) for numbers in zip(*pairs, strict=True))
    inside = (labels != OUTSIDE)[:, None].expand_as(images)
    both = [tensor.index_select(0, which).flatten(0, 1) for tensor in (images, inside) for which in (own, partners)]
    matched = match_histograms(*both)
    return images.index_copy(0, own, matched.reshape(len(pairs), *images.shape[1:]))


def _change_intensities(
    images: torch.Tensor, draws: Sequence[AugmentationParameters], axes: Sequence[int], noise: torch.Tensor
) -> None:
    """Applies the intensity rows of the table in place, in the order of `augmentation.change_intensities`."""
    noisy = [number for number, draw in enumerate(draws) if draw.noise_std is not None]
    if noisy:
        images.index_add_(0, _index(noisy, images.device), copy_to(noise, images.device))
    patch = images.shape[2:]
    _mix_lines(images, [draw.blur_sigmas for draw in draws], partial(blur_matrices, patch))
    _change_some(images, [draw.brightness for draw in draws], torch.mul)
    _change_some(images, [draw.contrast for draw in draws], change_contrast)
    _mix_lines(images, [draw.resolution for draw in draws], partial(coarsening_matrices, patch, axes))
    _change_some(
        images,
        [draw.gamma_inverted for draw in draws],
        lambda some, exponent: change_gamma(some.neg_(), exponent).neg_(),
    )
    _change_some(images, [draw.gamma for draw in draws], change_gamma)


def _change_some(images: torch.Tensor, amounts: Sequence[Amounts | None], change: Change) -> None:
    """Changes the patches that have amounts, one per channel, in place."""
    hits = [(number, amount) for number, amount in enumerate(amounts) if amount is not None]
    if not hits:
        return
    index = _index([number for number, _ in hits], images.device)
    some = images.index_select(0, index)
    column = as_column(np.concatenate([amount for _, amount in hits]), some.flatten(0, 1))
    images.index_copy_(0, index, change(some.flatten(0, 1), column).reshape(some.shape))


def _mix_lines(
    images: torch.Tensor,
    amounts: Sequence[Amounts | None],
    make: Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32] | None]],
) -> None:
    """Replaces, in place, each line of voxels along each axis by weighted sums of its voxels.

    Args:
        images: Shape (n, c, *patch).
        amounts: Of each patch and channel.
        make: Turns the amount of a channel into a matrix for each axis, (size, size), with None for the axes that stay;
            nothing at all for a channel that stays.
    """
    made = [
        (number * images.shape[1] + channel, matrices)
        for number, amount in enumerate(amounts)
        if amount is not None
        for channel, matrices in enumerate(map(make, amount))
        if matrices
    ]
    if not made:
        return
    index = _index([number for number, _ in made], images.device)
    channels = images.view(-1, *images.shape[2:])  # the same memory
    some = channels.index_select(0, index)
    for axis, of_axis in enumerate(zip(*(matrices for _, matrices in made), strict=True), start=1):
        present = [matrix for matrix in of_axis if matrix is not None]
        if present:
            lines = some.movedim(axis, 1)
            mixed = copy_to(torch.from_numpy(np.stack(present)), images.device) @ lines.flatten(2)
            some = mixed.reshape(lines.shape).movedim(1, axis)
    channels.index_copy_(0, index, some)


def _mirror(
    images: torch.Tensor, labels: torch.Tensor, draws: Sequence[AugmentationParameters], settings: AugmentationSettings
) -> None:
    """Flips patches along their axes, in place, and exchanges the labels of those that change sides."""
    for axis in settings.mirror_axes:
        hits = [number for number, draw in enumerate(draws) if axis in draw.mirrored]
        if hits:
            index = _index(hits, images.device)
            images.index_copy_(0, index, images.index_select(0, index).flip(axis + 2))
            some = labels.index_select(0, index).flip(axis + 1)
            if axis == settings.swap_axis:
                some = exchange_labels(some, settings.swapped_labels)
            labels.index_copy_(0, index, some)


def _index(numbers: Sequence[int] | NDArray[np.integer], device: torch.device) -> torch.Tensor:
    return copy_to(torch.as_tensor(numbers, dtype=torch.int64), device)
