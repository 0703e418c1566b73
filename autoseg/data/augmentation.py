"""Random changes of intensity and mirroring, as torch operations on a batch, on whatever device the batch is.

Rotation and scaling belong to reading (see `sampling`): there they cost only for the patches that are turned.
Each change follows one row of `AugmentationSettings`. Source of the table and of the order: the reference method
(nnU-Net v2.8.1, training transforms).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from autoseg.plan import AugmentationSettings

Range = tuple[float, float]


def augment(
    images: torch.Tensor, labels: torch.Tensor, settings: AugmentationSettings, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Changes each patch of a batch by chance.

    Args:
        images: Shape (n, c, *patch), float32, normalized.
        labels: Shape (n, *patch), integers; negative ones mark voxels outside a case.
        settings: Probabilities and ranges. Patches that are flipped along `swap_axis` have `swapped_labels` exchanged.
        random: Source of every draw, on the CPU.

    Returns:
        Images and labels of the same shapes.
    """
    augmented, mirrored = [], []
    for image, label in zip(images, labels, strict=True):
        changed = _change_intensities(image, settings, random)
        axes = [axis for axis in settings.mirror_axes if _chance(0.5, random)]
        augmented.append(changed.flip([axis + 1 for axis in axes]) if axes else changed)
        sided = exchange_labels(label, settings.swapped_labels) if settings.swap_axis in axes else label
        mirrored.append(sided.flip(axes) if axes else sided)
    return torch.stack(augmented), torch.stack(mirrored)


def exchange_labels(labels: torch.Tensor, pairs: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Exchanges the two labels of each pair; all others, negative ones too, stay.

    With the pair (1, 3), labels -1, 0, 1, 2, 3, 4 become -1, 0, 3, 2, 1, 4.
    """
    largest = max((label for pair in pairs for label in pair), default=0)
    partners = list(range(largest + 1))
    for first, second in pairs:
        partners[first], partners[second] = second, first
    table = torch.tensor(partners, dtype=labels.dtype, device=labels.device)
    within = labels.clamp(0, largest)
    return torch.where(labels == within, table[within.long()], labels)


def _change_intensities(image: torch.Tensor, settings: AugmentationSettings, random: torch.Generator) -> torch.Tensor:
    """Applies the intensity rows of the table to one patch (c, *patch), in the reference's order."""
    if _chance(settings.noise_probability, random):
        image = add_noise(image, _uniform((0.0, settings.noise_std), random), random)
    if _chance(settings.blur_probability, random):
        image = _on_some_channels(image, random, lambda one: blur(one, _uniform(settings.blur_sigma_voxels, random)))
    if _chance(settings.brightness_probability, random):
        image = image * _per_channel(image, settings.brightness_factor, random)
    if _chance(settings.contrast_probability, random):
        image = change_contrast(image, _per_channel(image, settings.contrast_factor, random))
    if _chance(settings.low_resolution_probability, random):
        image = _on_some_channels(
            image, random, lambda one: lower_resolution(one, _uniform(settings.low_resolution_factor, random))
        )
    if _chance(settings.gamma_inverted_probability, random):
        image = -change_gamma(-image, _per_channel(image, settings.gamma_exponent, random))
    if _chance(settings.gamma_probability, random):
        image = change_gamma(image, _per_channel(image, settings.gamma_exponent, random))
    return image


def add_noise(image: torch.Tensor, std: float, random: torch.Generator) -> torch.Tensor:
    """Adds Gaussian noise of one standard deviation to all channels of (c, *patch)."""
    noise = torch.randn(image.shape, generator=random).to(image.device)
    return image + std * noise


def blur(channel: torch.Tensor, sigma_voxels: float) -> torch.Tensor:
    """Smooths one channel of shape (*patch) with a Gaussian, cut off at three standard deviations."""
    radius = max(1, round(3 * sigma_voxels))
    distance = torch.arange(-radius, radius + 1, dtype=channel.dtype, device=channel.device)
    kernel = torch.exp(-0.5 * (distance / sigma_voxels) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(channel.ndim):
        lines = channel.movedim(axis, -1)
        padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        channel = F.conv1d(padded, kernel[None, None]).reshape(lines.shape).movedim(-1, axis)
    return channel


def change_contrast(image: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Stretches (c, *patch) about each channel's mean by its factor, within the channel's old range."""
    axes = tuple(range(1, image.ndim))
    mean = image.mean(dim=axes, keepdim=True)
    changed = (image - mean) * factor + mean
    return torch.minimum(torch.maximum(changed, image.amin(axes, keepdim=True)), image.amax(axes, keepdim=True))


def lower_resolution(channel: torch.Tensor, factor: float) -> torch.Tensor:
    """Takes every 1/factor-th voxel of (*patch) and interpolates back, as if the scan had been coarser."""
    mode = "trilinear" if channel.ndim == 3 else "bilinear"
    small = [max(1, round(size * factor)) for size in channel.shape]
    coarse = F.interpolate(channel[None, None], size=small, mode="nearest-exact")
    return F.interpolate(coarse, size=channel.shape, mode=mode, align_corners=False)[0, 0]


def change_gamma(image: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """Raises each channel of (c, *patch), mapped to 0..1, to its exponent, and restores mean and deviation."""
    axes = tuple(range(1, image.ndim))
    mean, std = image.mean(dim=axes, keepdim=True), image.std(dim=axes, keepdim=True, correction=0)
    lowest = image.amin(axes, keepdim=True)
    extent = (image.amax(axes, keepdim=True) - lowest).clamp_min(1e-7)
    changed = ((image - lowest) / extent) ** exponent * extent + lowest
    new_mean = changed.mean(dim=axes, keepdim=True)
    new_std = changed.std(dim=axes, keepdim=True, correction=0).clamp_min(1e-7)
    return (changed - new_mean) / new_std * std + mean


def _on_some_channels(
    image: torch.Tensor, random: torch.Generator, change: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Changes each channel of (c, *patch) with chance one half."""
    return torch.stack([change(channel) if _chance(0.5, random) else channel for channel in image])


def _chance(probability: float, random: torch.Generator) -> bool:
    return float(torch.rand((), generator=random)) < probability


def _uniform(bounds: Range, random: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=random))


def _factor(bounds: Range, random: torch.Generator) -> float:
    """Draws below or above 1 with equal chance if the range spans 1, else evenly."""
    low, high = bounds
    if low < 1 < high:
        return _uniform((low, 1.0), random) if _chance(0.5, random) else _uniform((1.0, high), random)
    return _uniform(bounds, random)


def _per_channel(image: torch.Tensor, bounds: Range, random: torch.Generator) -> torch.Tensor:
    """One factor per channel, shaped to multiply (c, *patch)."""
    factors = torch.tensor([_factor(bounds, random) for _ in range(image.shape[0])], dtype=image.dtype)
    return factors.to(image.device).reshape(-1, *[1] * (image.ndim - 1))
