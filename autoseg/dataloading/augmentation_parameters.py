"""The random parameters of the augmentation of a patch, drawn in the order of the rows of `AugmentationSettings`.

Augmentation on the CPU and on the device follows the same `AugmentationParameters`. So both give the same patches, up
to rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autoseg.dataloading.affine import draw_affine
from autoseg.dataloading.deformation import count_points
from autoseg.planning.settings import AugmentationSettings

CHANNEL_CHANCE = 0.5
"""Probability that a channel of a patch is blurred, or loses resolution, if the patch is to be.

Source: the reference method.
"""

MIRROR_CHANCE = 0.5
"""Probability of each axis to be flipped. Source: the reference method."""

Amounts = NDArray[np.float32]
Range = tuple[float, float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationParameters:
    """The changes of one patch of c channels and d axes; a change that is None is not made.

    Attributes:
        affine: Matrix of rotation and scaling, shape (d, d); see `affine.draw_affine`.
        displacements: Displacements of the points of a coarse grid along the deformed axes, in voxels; shape (deformed
            axes, *points). See `deformation`.
        partner: Index of the patch of the batch whose histogram this patch is matched to.
        noise_std: Standard deviation of the Gaussian noise.
        noise_seed: Seed of the noise.
        blur_sigmas: Standard deviation of the Gaussian blur for each channel and axis, in voxels; shape (c, d). A
            channel of zeros stays sharp.
        brightness: Factor for each channel, shape (c,).
        contrast: Factor for each channel, shape (c,).
        resolution: Share of the voxels that each axis keeps, for each channel, shape (c,); a channel of 1 stays as it
            is.
        gamma_inverted: Exponent for each channel, applied to the inverted channel, shape (c,).
        gamma: Exponent for each channel, shape (c,).
        missing: Channels that become 0 everywhere, after all other changes of intensity.
        mirrored: Axes along which the patch is flipped.
        custom: Index and seed of each custom transform that changes the patch.
    """

    affine: NDArray[np.float64] | None = None
    displacements: Amounts | None = None
    partner: int | None = None
    noise_std: float | None = None
    noise_seed: int = 0
    blur_sigmas: Amounts | None = None
    brightness: Amounts | None = None
    contrast: Amounts | None = None
    resolution: Amounts | None = None
    gamma_inverted: Amounts | None = None
    gamma: Amounts | None = None
    missing: tuple[int, ...] = ()
    mirrored: tuple[int, ...] = ()
    custom: tuple[tuple[int, int], ...] = ()

    @property
    def is_warped(self) -> bool:
        """Whether the patch is rotated, scaled or deformed, so that it must be interpolated."""
        return self.affine is not None or self.displacements is not None

    def repeat_channels(self, repeats: Sequence[int]) -> "AugmentationParameters":
        """Returns the same changes of images in which each channel stands several times in a row.

        Windows of one scan change alike in this way, as if the scan had changed, and are missing together.

        Example:
            >>> AugmentationParameters(brightness=np.array([2.0, 3.0]), missing=(1,)).repeat_channels((1, 2))
            AugmentationParameters(..., brightness=array([2., 3., 3.]), ..., missing=(1, 2), ...)

        Args:
            repeats: How often each channel stands.
        """
        if all(count == 1 for count in repeats):
            return self

        def repeat(amounts: Amounts | None) -> Amounts | None:
            return None if amounts is None else np.repeat(amounts, repeats, axis=0)

        return replace(
            self,
            blur_sigmas=repeat(self.blur_sigmas),
            brightness=repeat(self.brightness),
            contrast=repeat(self.contrast),
            resolution=repeat(self.resolution),
            gamma_inverted=repeat(self.gamma_inverted),
            gamma=repeat(self.gamma),
            missing=tuple(number_repeated(self.missing, repeats)),
        )


def number_repeated(channels: Sequence[int], repeats: Sequence[int]) -> list[int]:
    """Returns the numbers of some channels where each channel stands several times in a row.

    Example:
        >>> number_repeated([0, 2], repeats=(1, 2, 3))
        [0, 3, 4, 5]
    """
    firsts = np.cumsum([0, *repeats]).tolist()
    return [number for channel in channels for number in range(firsts[channel], firsts[channel + 1])]


UNCHANGED = AugmentationParameters()


def draw_parameters(
    settings: AugmentationSettings,
    patch_size: Sequence[int],
    *,
    channels: int,
    others: Sequence[int],
    random: np.random.Generator,
    missing: Sequence[int] = (),
) -> AugmentationParameters:
    """Draws the random changes of one patch.

    Args:
        settings: Probabilities and ranges of the changes.
        patch_size: Size of the patch along two or three axes, in voxels.
        channels: Number of channels of the image.
        others: Indices of the other patches of the batch; if there are none, no histogram is matched.
        random: Source of every random number.
        missing: Channels that the case lacks, so that they are 0 everywhere.

    Example:
        >>> settings = AugmentationSettings(brightness_probability=1.0, mirror_axes=(0, 1))
        >>> parameters = draw_parameters(
        ...     settings, (64, 64), channels=2, others=(), random=np.random.default_rng(0)
        ... )
        >>> parameters.brightness.shape
        (2,)
    """

    def with_probability(probability: float, make: Callable[[], T]) -> T | None:
        return make() if random.random() < probability else None

    def factors(bounds: Range) -> Callable[[], Amounts]:
        return lambda: np.array([_factor(bounds, random) for _ in range(channels)], dtype=np.float32)

    axes = len(patch_size)
    return AugmentationParameters(
        affine=draw_affine(settings, axes, random),
        displacements=with_probability(
            settings.deformation_probability, lambda: _displacements(settings, patch_size, random)
        ),
        partner=with_probability(
            settings.histogram_matching_probability if others else 0.0,
            lambda: others[int(random.integers(len(others)))],
        ),
        noise_std=with_probability(settings.noise_probability, lambda: float(random.uniform(0, settings.noise_std))),
        noise_seed=int(random.integers(2**62)),
        blur_sigmas=with_probability(
            settings.blur_probability,
            lambda: _keep_some_channels(random.uniform(*settings.blur_sigma_voxels, (channels, axes)), 0.0, random),
        ),
        brightness=with_probability(settings.brightness_probability, factors(settings.brightness_factor)),
        contrast=with_probability(settings.contrast_probability, factors(settings.contrast_factor)),
        resolution=with_probability(
            settings.low_resolution_probability,
            lambda: _keep_some_channels(random.uniform(*settings.low_resolution_factor, channels), 1.0, random),
        ),
        gamma_inverted=with_probability(settings.gamma_inverted_probability, factors(settings.gamma_exponent)),
        gamma=with_probability(settings.gamma_probability, factors(settings.gamma_exponent)),
        mirrored=tuple(axis for axis in settings.mirror_axes if random.random() < MIRROR_CHANCE),
        custom=tuple(
            (number, int(random.integers(2**62)))
            for number, transform in enumerate(settings.custom)
            if random.random() < transform.probability
        ),
        missing=_draw_missing(settings.missing_channels_probability, channels, missing, random),
    )


def _draw_missing(
    probability: float, channels: int, missing: Sequence[int], random: np.random.Generator
) -> tuple[int, ...]:
    """Adds random channels to those that a case lacks: any number that leaves a channel is as likely as another."""
    present = [channel for channel in range(channels) if channel not in missing]
    if len(present) < 2 or not probability or random.random() >= probability:
        return tuple(missing)
    number = int(random.integers(1, len(present)))
    return tuple(sorted((*missing, *random.choice(present, size=number, replace=False).tolist())))


def _displacements(settings: AugmentationSettings, patch_size: Sequence[int], random: np.random.Generator) -> Amounts:
    """Draws the displacements of the grid points, in voxels; shape (deformed axes, *points)."""
    axes = settings.in_plane_axes(len(patch_size))
    points = [count_points(patch_size[axis], settings.deformation_spacing_voxels) for axis in axes]
    return random.normal(0, settings.deformation_std_voxels, (len(axes), *points)).astype(np.float32)


def _keep_some_channels(amounts: NDArray[np.float64], neutral: float, random: np.random.Generator) -> Amounts:
    """Replaces the amounts of the channels that chance leaves unchanged by the neutral one; shape (c, ...)."""
    chosen = random.random(len(amounts)) < CHANNEL_CHANCE
    chosen = chosen.reshape(-1, *(1,) * (amounts.ndim - 1))
    return np.where(chosen, amounts, neutral).astype(np.float32)


def _factor(bounds: Range, random: np.random.Generator) -> float:
    """Draws a factor evenly; if the range spans 1, values below and above 1 are equally likely.

    Source: the reference method.
    """
    low, high = bounds
    if low < 1 < high:
        low, high = (low, 1.0) if random.random() < 0.5 else (1.0, high)
    return float(random.uniform(low, high))
