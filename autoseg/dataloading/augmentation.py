"""Changes of intensity, and mirroring, patch by patch, for the threads that prepare batches.

Rotation, scaling and deformation are part of reading (see `sampling`), so they cost time only for the patches that are
warped. The `AugmentationParameters` of a patch say how it changes; `device_augmentation` does the same to a whole batch
on a GPU. Source of the changes and of their order: the reference method (nnU-Net v2.8.1, training transforms).

Decision: the changes are operations of torch in threads, not the transforms of batchgenerators in processes: no process
can hang, nothing is copied between processes, and each change is faster; see tests/benchmarks/augmentation.py.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from autoseg.dataloading.augmentation_parameters import Amounts, AugmentationParameters
from autoseg.dataloading.batchgenerators_transforms import resolve_transform
from autoseg.dataloading.histogram_matching import match_histograms
from autoseg.dataloading.label_swaps import swap_labels, swap_table
from autoseg.errors import UsageError
from autoseg.imaging.targets import OUTSIDE
from autoseg.planning.plugin_settings import CustomTransform
from autoseg.planning.settings import AugmentationSettings


def augment(
    images: torch.Tensor,
    labels: torch.Tensor,
    parameters: Sequence[AugmentationParameters],
    settings: AugmentationSettings,
) -> None:
    """Augments the patches of a batch in place, after rotation, scaling and deformation.

    Args:
        images: Normalized images, shape (n, c, *patch), float32.
        labels: Label maps, shape (n, *patch), integers; `OUTSIDE` marks voxels outside a case.
        parameters: Changes of each patch.
        settings: Augmentation settings of the plan. In patches that are flipped along `swap_axis`, the pairs of
            `swapped_labels` are swapped.

    Example:
        >>> images, labels = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[0, 1]]])
        >>> flipped = AugmentationParameters(brightness=np.float32([1.5]), mirrored=(1,))
        >>> augment(images, labels, [flipped], AugmentationSettings())
        >>> images.tolist(), labels.tolist()
        ([[[[3.0, 1.5]]]], [[[1, 0]]])
    """
    _match(images, labels, parameters)
    axes = settings.in_plane_axes(labels.ndim - 1)
    for image, label, params in zip(images, labels, parameters, strict=True):
        change_intensities(image, params, axes)
        for number, seed in params.custom:
            changed, changed_label = apply_custom_transform(settings.custom[number], image, label, seed)
            image.copy_(changed)
            label.copy_(changed_label)
        if settings.swap_axis in params.mirrored:
            label.copy_(swap_labels(label, swap_table(settings.swapped_labels)))
        if params.mirrored:
            image.copy_(image.flip([axis + 1 for axis in params.mirrored]))
            label.copy_(label.flip(params.mirrored))


def _match(images: torch.Tensor, labels: torch.Tensor, parameters: Sequence[AugmentationParameters]) -> None:
    """Matches the histograms of patches to those that other patches of the batch had at first."""
    matched = {}
    for number, params in enumerate(parameters):
        if params.partner is not None:
            inside, others_inside = (
                (labels[patch] != OUTSIDE).expand_as(images[patch]) for patch in (number, params.partner)
            )
            matched[number] = match_histograms(images[number], images[params.partner], inside, others_inside)
    for number, image in matched.items():
        images[number] = image


def change_intensities(image: torch.Tensor, params: AugmentationParameters, axes: Sequence[int]) -> None:
    """Changes the intensities of one patch in place.

    Decision: in place, because allocating memory for a patch takes as long as multiplying it.

    Args:
        image: The patch, shape (c, *patch).
        params: Changes of the patch.
        axes: Axes that lose resolution if the patch does.
    """
    if params.noise_std is not None:
        image.add_(make_noise(params, image.shape))
    if params.blur_sigmas is not None:
        blur(image, params.blur_sigmas)
    if params.brightness is not None:
        image.mul_(_as_column(params.brightness, image))
    if params.contrast is not None:
        change_contrast(image, _as_column(params.contrast, image))
    if params.resolution is not None:
        lower_resolution(image, params.resolution, axes)
    if params.gamma_inverted is not None:
        change_gamma(image.neg_(), _as_column(params.gamma_inverted, image)).neg_()
    if params.gamma is not None:
        change_gamma(image, _as_column(params.gamma, image))
    image[list(params.missing)] = 0


def apply_custom_transform(
    custom: CustomTransform, image: torch.Tensor, label: torch.Tensor, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Changes a patch by a transform of batchgenerators or of an installed package; see `planning.plugins`.

    Args:
        custom: Name and settings of the transform.
        image: Image of the patch, shape (c, *patch); may be changed in place.
        label: Label map of the patch, shape (*patch); may be changed in place.
        seed: Seed of the transform's random numbers.

    Returns:
        The changed image and label map.

    Raises:
        UsageError: The transform is not installed, or does not return an image and a label map of the same shapes.
    """
    shapes = image.shape, label.shape
    transform = resolve_transform(custom)
    changed: object = transform(image, label, np.random.default_rng(seed), custom.read_only_settings)
    match changed:
        case (torch.Tensor() as new_image, torch.Tensor() as new_label) if (new_image.shape, new_label.shape) == shapes:
            if new_image.is_floating_point() and not new_label.is_floating_point():
                return new_image, new_label
    problem = (
        f"the transform {custom.name!r} does not give an image (float) and a label map (integers) of the patch's shape"
    )
    raise UsageError(problem, "choose another transform, other settings of it, or mend its package")


def _as_column(amounts: Amounts, images: torch.Tensor) -> torch.Tensor:
    """Returns one amount per channel as a tensor that multiplies images (channels, *patch)."""
    return torch.from_numpy(amounts).reshape(-1, *[1] * (images.ndim - 1))


def make_noise(params: AugmentationParameters, shape: Sequence[int]) -> torch.Tensor:
    """Returns the Gaussian noise of a patch, zero if the patch gets none.

    The same parameters give the same noise on every machine.
    """
    noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(params.noise_seed))
    return noise.mul_(params.noise_std or 0.0)


def kernel_radius(sigma_voxels: float) -> int:
    """Returns the number of voxels that a Gaussian kernel reaches on each side; at least one.

    Source: the reference method: the whole width is the odd number nearest to 6 sigma + 0.5.

    Example:
        Kernels of 3 voxels for a standard deviation of 0.5, and of 7 voxels for 1:

        >>> kernel_radius(0.5), kernel_radius(1.0)
        (1, 3)
    """
    return max(1, round(3 * sigma_voxels - 0.25))


def gaussian_kernel(sigma_voxels: float) -> list[float]:
    """Returns the weights of a Gaussian kernel from -radius to radius; their sum is 1."""
    radius = kernel_radius(sigma_voxels)
    distance = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (distance / sigma_voxels) ** 2)
    return [float(weight) for weight in kernel / kernel.sum()]


def blur(image: torch.Tensor, sigmas_voxels: Amounts) -> None:
    """Blurs each channel with a Gaussian along each axis, in place.

    Decision: beyond the border, the outermost voxels are repeated. The reference method mirrors the patch there, which
    is impossible where an axis is shorter than the kernel.

    Args:
        image: Image of the patch, shape (c, *patch).
        sigmas_voxels: Standard deviations in voxels, shape (c, axes); a channel of zeros stays sharp.
    """
    for channel, sigmas in zip(image, sigmas_voxels, strict=True):
        for axis, sigma in enumerate(sigmas):
            if sigma:
                _blur_along(channel, axis, float(sigma))


def _blur_along(channel: torch.Tensor, axis: int, sigma_voxels: float) -> None:
    """Blurs one channel along one axis, in place.

    A weighted sum of shifted copies is many times faster on a CPU than a convolution with one channel.
    """
    kernel = gaussian_kernel(sigma_voxels)
    radius, size = len(kernel) // 2, channel.shape[axis]
    first, last = channel.narrow(axis, 0, 1), channel.narrow(axis, size - 1, 1)
    padded = torch.cat([*[first] * radius, channel, *[last] * radius], dim=axis)
    channel.mul_(kernel[radius])
    for shift, weight in enumerate(kernel):
        if shift != radius:
            channel.add_(padded.narrow(axis, shift, size), alpha=weight)


def change_contrast(image: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiplies the deviation of each channel from its mean by a factor, and clips to its old range; in place.

    Args:
        image: Channels, shape (c, *patch).
        factor: Factor of each channel, shape (c, 1, ...).
    """
    axes = tuple(range(1, image.ndim))
    mean = image.mean(axes, keepdim=True)
    lowest, highest = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    # Clamping to two bounds in one call, and torch.lerp, are ten times slower on a CPU.
    return image.mul_(factor).add_(mean * (1 - factor)).clamp_min_(lowest).clamp_max_(highest)


def coarse_size(size: int, factor: float) -> int:
    """Returns the number of voxels that remain along an axis at low resolution; at least one."""
    return max(1, round(size * factor))


def lower_resolution(image: torch.Tensor, factors: Amounts, axes: Sequence[int]) -> None:
    """Simulates a coarser scan, in place: keeps a share of the voxels along some axes, and interpolates back linearly.

    Args:
        image: Image of the patch, shape (c, *patch).
        factors: Share of the voxels that remain along each of the axes, for each channel; a channel of 1 stays as it
            is.
        axes: Axes of the patch that lose resolution.
    """
    mode = "trilinear" if image.ndim == 4 else "bilinear"
    for channel, factor in zip(image, factors.tolist(), strict=True):
        if factor < 1:
            small = [coarse_size(size, factor) if axis in axes else size for axis, size in enumerate(channel.shape)]
            coarse = F.interpolate(channel[None, None], size=small, mode="nearest-exact")
            channel.copy_(F.interpolate(coarse, size=channel.shape, mode=mode, align_corners=False)[0, 0])


def change_gamma(image: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """Changes the gamma of each channel in place, and restores its mean and standard deviation.

    The channel is scaled to 0..1 and raised to its exponent. A constant channel stays as it is.

    Args:
        image: Channels, shape (c, *patch).
        exponent: Exponent of each channel, shape (c, 1, ...).
    """
    axes = tuple(range(1, image.ndim))
    mean, lowest = image.mean(axes, keepdim=True), image.amin(axes, keepdim=True)
    extent = (image.amax(axes, keepdim=True) - lowest).clamp_min_(1e-7)
    std = _deviation(image.sub_(mean))
    # Logarithm and exponential take three quarters of the time of a power on a CPU; the logarithm of 0 does no harm.
    image.sub_(lowest - mean).clamp_min_(0).div_(extent).log_().mul_(exponent).exp_()
    # There is no need to scale back to the old range, because mean and standard deviation are restored.
    image.sub_(image.mean(axes, keepdim=True))
    return image.mul_(std / _deviation(image).clamp_min_(1e-7)).add_(mean)


def _deviation(centred: torch.Tensor) -> torch.Tensor:
    """Returns the standard deviation of each channel of (c, *patch) whose mean is 0.

    It takes a tenth of the time of `torch.std`.
    """
    axes = tuple(range(1, centred.ndim))
    length: torch.Tensor = torch.linalg.vector_norm(centred, dim=axes, keepdim=True)
    return length / math.sqrt(centred[0].numel())


def clear_outside(images: torch.Tensor, labels: torch.Tensor, channels: Sequence[int]) -> None:
    """Sets some channels to zero outside the cases, in place.

    They are zero there by definition, but noise has changed that.

    Args:
        images: Images, shape (n, c, *patch).
        labels: Label maps, shape (n, *patch); `OUTSIDE` marks voxels outside a case.
        channels: Indices of the channels that were normalized over the non-zero region.
    """
    if channels:
        inside = labels != OUTSIDE
        for channel in channels:
            images[:, channel].mul_(inside)
