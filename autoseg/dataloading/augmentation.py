"""Random changes of intensity, and mirroring, patch by patch; made for the threads that make batches.

Rotation, scaling and deformation belong to reading (see `sampling`): there they cost only for the patches that are
turned. What happens to a patch is in its `AugmentationParameters`; `device_augmentation` does the same to a whole batch
on a GPU. Source of the rows and of their order: the reference method (nnU-Net v2.8.1, training transforms).

Decision: rows are operations of torch in threads, not the transforms of batchgenerators in processes, which the issue
of this package named at first: no process can hang, nothing is copied between them, and each row is faster; see
tests/benchmarks/augmentation.py.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from autoseg.dataloading.augmentation_parameters import Amounts, AugmentationParameters
from autoseg.dataloading.histogram_matching import match_histograms
from autoseg.errors import UsageError
from autoseg.imaging.targets import OUTSIDE
from autoseg.planning.plugins import CustomTransform, find_transform
from autoseg.planning.settings import AugmentationSettings
from autoseg.runtime.device import copy_to


def augment(
    images: torch.Tensor, labels: torch.Tensor, draws: Sequence[AugmentationParameters], settings: AugmentationSettings
) -> None:
    """Changes the patches of a batch, which were turned already, in place.

    Args:
        images: Shape (n, c, *patch), float32, normalized.
        labels: Shape (n, *patch), integers; `OUTSIDE` marks voxels outside a case.
        draws: What happens to each.
        settings: Of the plan. Patches that are flipped along `swap_axis` have `swapped_labels` exchanged.
    """
    _match(images, labels, draws)
    axes = settings.in_plane_axes(labels.ndim - 1)
    for image, label, draw in zip(images, labels, draws, strict=True):
        change_intensities(image, draw, axes)
        for number, seed in draw.custom:
            changed, changed_label = apply_custom_transform(settings.custom[number], image, label, seed)
            image.copy_(changed)
            label.copy_(changed_label)
        if settings.swap_axis in draw.mirrored:
            label.copy_(exchange_labels(label, settings.swapped_labels))
        if draw.mirrored:
            image.copy_(image.flip([axis + 1 for axis in draw.mirrored]))
            label.copy_(label.flip(draw.mirrored))


def _match(images: torch.Tensor, labels: torch.Tensor, draws: Sequence[AugmentationParameters]) -> None:
    """Gives patches the intensities of others, all as they were before."""
    matched = {}
    for number, draw in enumerate(draws):
        if draw.partner is not None:
            inside, others_inside = ((labels[one] != OUTSIDE).expand_as(images[one]) for one in (number, draw.partner))
            matched[number] = match_histograms(images[number], images[draw.partner], inside, others_inside)
    for number, image in matched.items():
        images[number] = image


def change_intensities(image: torch.Tensor, draw: AugmentationParameters, axes: Sequence[int]) -> None:
    """Applies the intensity rows of the table to one patch (c, *patch) in place; `axes` are those that lose resolution.

    Decision: in place, because fresh memory for a patch costs as much as multiplying it.
    """
    if draw.noise_std is not None:
        image.add_(make_noise(draw, image.shape))
    if draw.blur_sigmas is not None:
        blur(image, draw.blur_sigmas)
    if draw.brightness is not None:
        image.mul_(as_column(draw.brightness, image))
    if draw.contrast is not None:
        change_contrast(image, as_column(draw.contrast, image))
    if draw.resolution is not None:
        lower_resolution(image, draw.resolution, axes)
    if draw.gamma_inverted is not None:
        change_gamma(image.neg_(), as_column(draw.gamma_inverted, image)).neg_()
    if draw.gamma is not None:
        change_gamma(image, as_column(draw.gamma, image))


def apply_custom_transform(
    custom: CustomTransform, image: torch.Tensor, label: torch.Tensor, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Changes a patch by a transform that an installed package offers; see `extensions.ChangePatch`.

    Args:
        custom: Its name and settings.
        image: Shape (c, *patch); may be changed in place.
        label: Shape (*patch); likewise.
        seed: Of its draws.

    Raises:
        UsageError: It gives anything but an image and a label map of the same shapes, or is not installed.
    """
    shapes = image.shape, label.shape
    changed: object = find_transform(custom.name)(image, label, np.random.default_rng(seed), custom.given)
    match changed:
        case (torch.Tensor() as new_image, torch.Tensor() as new_label) if (new_image.shape, new_label.shape) == shapes:
            if new_image.is_floating_point() and not new_label.is_floating_point():
                return new_image, new_label
    what = (
        f"the transform {custom.name!r} does not give an image (float) and a label map (integers) of the patch's shape"
    )
    raise UsageError(what, "mend that package")


def as_column(amounts: Amounts, images: torch.Tensor) -> torch.Tensor:
    """One amount per channel, shaped to multiply images (channels, *patch), on their device."""
    column = torch.from_numpy(amounts).reshape(-1, *[1] * (images.ndim - 1))
    return copy_to(column, images.device)


def make_noise(draw: AugmentationParameters, shape: Sequence[int]) -> torch.Tensor:
    """The Gaussian noise of a patch, the same for one draw on every machine; without a draw of noise it is zero."""
    noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(draw.noise_seed))
    return noise.mul_(draw.noise_std or 0.0)


def kernel_radius(sigma_voxels: float) -> int:
    """Voxels on each side that a Gaussian reaches; at least one.

    Source: the reference method: the whole width is the odd number nearest to 6 sigma + 0.5, so 3 voxels for a sigma of
    0.5 and 7 voxels for 1.
    """
    return max(1, round(3 * sigma_voxels - 0.25))


def gaussian_kernel(sigma_voxels: float) -> list[float]:
    """Weights from -radius to radius; their sum is 1."""
    radius = kernel_radius(sigma_voxels)
    distance = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (distance / sigma_voxels) ** 2)
    return [float(weight) for weight in kernel / kernel.sum()]


def blur(image: torch.Tensor, sigmas_voxels: Amounts) -> None:
    """Smooths each channel with a Gaussian along each axis, in place; a channel whose sigmas are 0 stays sharp.

    Decision: at the border the outermost voxels go on. The reference method mirrors the patch there, which is
    impossible where an axis is shorter than the kernel.

    Args:
        image: Shape (c, *patch).
        sigmas_voxels: Shape (c, axes).
    """
    for channel, sigmas in zip(image, sigmas_voxels, strict=True):
        for axis, sigma in enumerate(sigmas):
            if sigma:
                _blur_along(channel, axis, float(sigma))


def _blur_along(channel: torch.Tensor, axis: int, sigma_voxels: float) -> None:
    """A weighted sum of shifted copies, which is many times faster on a CPU than a convolution with one channel."""
    kernel = gaussian_kernel(sigma_voxels)
    radius, size = len(kernel) // 2, channel.shape[axis]
    first, last = channel.narrow(axis, 0, 1), channel.narrow(axis, size - 1, 1)
    padded = torch.cat([*[first] * radius, channel, *[last] * radius], dim=axis)
    channel.mul_(kernel[radius])
    for shift, weight in enumerate(kernel):
        if shift != radius:
            channel.add_(padded.narrow(axis, shift, size), alpha=weight)


def change_contrast(image: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Stretches (c, *patch) about each channel's mean by its factor, within the channel's old range; in place."""
    axes = tuple(range(1, image.ndim))
    mean = image.mean(axes, keepdim=True)
    lowest, highest = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    # Two bounds at once, and torch.lerp, are ten times slower on a CPU.
    return image.mul_(factor).add_(mean * (1 - factor)).clamp_min_(lowest).clamp_max_(highest)


def coarse_size(size: int, factor: float) -> int:
    """Voxels that remain along an axis."""
    return max(1, round(size * factor))


def lower_resolution(image: torch.Tensor, factors: Amounts, axes: Sequence[int]) -> None:
    """Takes every 1/factor-th voxel along some axes and interpolates back, in place, as if the scan had been coarser.

    Args:
        image: Shape (c, *patch).
        factors: Of each channel; one of 1 stays as it is.
        axes: Of the patch.
    """
    mode = "trilinear" if image.ndim == 4 else "bilinear"
    for channel, factor in zip(image, factors.tolist(), strict=True):
        if factor < 1:
            small = [coarse_size(size, factor) if axis in axes else size for axis, size in enumerate(channel.shape)]
            coarse = F.interpolate(channel[None, None], size=small, mode="nearest-exact")
            channel.copy_(F.interpolate(coarse, size=channel.shape, mode=mode, align_corners=False)[0, 0])


def change_gamma(image: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """Raises each channel of (c, *patch), mapped to 0..1, to its exponent, and restores mean and deviation; in place.

    A constant channel stays as it is.
    """
    axes = tuple(range(1, image.ndim))
    mean, lowest = image.mean(axes, keepdim=True), image.amin(axes, keepdim=True)
    extent = (image.amax(axes, keepdim=True) - lowest).clamp_min_(1e-7)
    std = _deviation(image.sub_(mean))
    # Logarithm and exponential take three quarters of the time of a power on a CPU; the logarithm of 0 does no harm.
    image.sub_(lowest - mean).clamp_min_(0).div_(extent).log_().mul_(exponent).exp_()
    # Back to the old range would come next, but is undone by what restores mean and deviation.
    image.sub_(image.mean(axes, keepdim=True))
    return image.mul_(std / _deviation(image).clamp_min_(1e-7)).add_(mean)


def _deviation(centred: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each channel of (c, *patch) whose mean is 0; a tenth of the time of `torch.std`."""
    axes = tuple(range(1, centred.ndim))
    length: torch.Tensor = torch.linalg.vector_norm(centred, dim=axes, keepdim=True)
    return length / math.sqrt(centred[0].numel())


def exchange_labels(labels: torch.Tensor, pairs: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Exchanges the two labels of each pair; all others, negative ones too, stay.

    With the pair (1, 3), labels -1, 0, 1, 2, 3, 4 become -1, 0, 3, 2, 1, 4.
    """
    largest = max((label for pair in pairs for label in pair), default=0)
    partners = list(range(largest + 1))
    for first, second in pairs:
        partners[first], partners[second] = second, first
    table = copy_to(torch.tensor(partners, dtype=labels.dtype), labels.device)
    within = labels.clamp(0, largest)
    return torch.where(labels == within, table[within.long()], labels)


def clear_outside(images: torch.Tensor, labels: torch.Tensor, channels: Sequence[int]) -> None:
    """Sets some channels to zero outside the cases, in place: where they are zero by definition, noise made them not.

    Args:
        images: Shape (n, c, *patch).
        labels: Shape (n, *patch), `OUTSIDE` where they are outside.
        channels: Those that were normalized over the region that is not zero.
    """
    if channels:
        inside = labels != OUTSIDE
        for channel in channels:
            images[:, channel] *= inside
