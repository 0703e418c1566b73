"""What chance decides about a patch: one row of `AugmentationSettings` after the other, and nothing else.

Whoever changes the patch, and on whatever device, obeys the same `AugmentationParameters`. So both ways of augmenting
give the same patches, up to rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autoseg.dataloading.deformation import count_points
from autoseg.dataloading.sampling import draw_affine
from autoseg.planning.settings import AugmentationSettings

CHANNEL_CHANCE = 0.5
"""Of a channel to be blurred, or to lose resolution, in a patch that is. Source: the reference method."""

MIRROR_CHANCE = 0.5  # Of each axis. Source: the reference method

Amounts = NDArray[np.float32]
Range = tuple[float, float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationParameters:
    """The changes of one patch of c channels and d axes; what is None leaves it as it is.

    Attributes:
        affine: Rotation and scaling, shape (d, d); see `sampling.draw_affine`.
        displacements: Movements of the points of a coarse grid along its moving axes; see `deformation`.
        partner: Number of the patch of the batch whose intensities this one takes on.
        noise_std: Standard deviation of the noise.
        noise_seed: What the noise follows from.
        blur_sigmas: Of each channel and axis, shape (c, d); a channel of zeros stays sharp.
        brightness, contrast, gamma_inverted, gamma: Of each channel, shape (c,).
        resolution: Share of the voxels that each axis keeps, of each channel; a channel of 1 stays as it is.
        mirrored: Axes along which it is flipped.
        custom: For each custom transform that changes the patch, its number and its seed.
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
    mirrored: tuple[int, ...] = ()
    custom: tuple[tuple[int, int], ...] = ()

    @property
    def turned(self) -> bool:
        """Whether its voxels lie between those of the case, so that it must be interpolated."""
        return self.affine is not None or self.displacements is not None


UNCHANGED = AugmentationParameters()


def draw_parameters(
    settings: AugmentationSettings,
    patch_size: Sequence[int],
    *,
    channels: int,
    others: Sequence[int],
    random: np.random.Generator,
) -> AugmentationParameters:
    """Draws the changes of one patch.

    Args:
        settings: Probabilities and ranges.
        patch_size: Two or three axes.
        channels: Of the image.
        others: Numbers of the other patches of the batch; if there are none, no histogram is matched.
        random: Source of every draw.
    """

    def perhaps(probability: float, make: Callable[[], T]) -> T | None:
        return make() if random.random() < probability else None

    def factors(bounds: Range) -> Callable[[], Amounts]:
        return lambda: np.array([_factor(bounds, random) for _ in range(channels)], dtype=np.float32)

    axes = len(patch_size)
    return AugmentationParameters(
        affine=draw_affine(settings, axes, random),
        displacements=perhaps(settings.deformation_probability, lambda: _displacements(settings, patch_size, random)),
        partner=perhaps(
            settings.histogram_matching_probability if others else 0.0,
            lambda: others[int(random.integers(len(others)))],
        ),
        noise_std=perhaps(settings.noise_probability, lambda: float(random.uniform(0, settings.noise_std))),
        noise_seed=int(random.integers(2**62)),
        blur_sigmas=perhaps(
            settings.blur_probability,
            lambda: _of_some_channels(random.uniform(*settings.blur_sigma_voxels, (channels, axes)), 0.0, random),
        ),
        brightness=perhaps(settings.brightness_probability, factors(settings.brightness_factor)),
        contrast=perhaps(settings.contrast_probability, factors(settings.contrast_factor)),
        resolution=perhaps(
            settings.low_resolution_probability,
            lambda: _of_some_channels(random.uniform(*settings.low_resolution_factor, channels), 1.0, random),
        ),
        gamma_inverted=perhaps(settings.gamma_inverted_probability, factors(settings.gamma_exponent)),
        gamma=perhaps(settings.gamma_probability, factors(settings.gamma_exponent)),
        mirrored=tuple(axis for axis in settings.mirror_axes if random.random() < MIRROR_CHANCE),
        custom=tuple(
            (number, int(random.integers(2**62)))
            for number, transform in enumerate(settings.custom)
            if random.random() < transform.probability
        ),
    )


def _displacements(settings: AugmentationSettings, patch_size: Sequence[int], random: np.random.Generator) -> Amounts:
    """Movements of the points, shape (moving axes, *points), in voxels."""
    axes = settings.in_plane_axes(len(patch_size))
    points = [count_points(patch_size[axis], settings.deformation_spacing_voxels) for axis in axes]
    return random.normal(0, settings.deformation_std_voxels, (len(axes), *points)).astype(np.float32)


def _of_some_channels(amounts: NDArray[np.float64], usual: float, random: np.random.Generator) -> Amounts:
    """Amounts whose first axis is the channels, with the usual one for those that chance leaves alone."""
    chosen = random.random(len(amounts)) < CHANNEL_CHANCE
    chosen = chosen.reshape(-1, *(1,) * (amounts.ndim - 1))
    return np.where(chosen, amounts, usual).astype(np.float32)


def _factor(bounds: Range, random: np.random.Generator) -> float:
    """Draws below or above 1 with equal chance if the range spans 1, else evenly. Source: the reference method."""
    low, high = bounds
    if low < 1 < high:
        low, high = (low, 1.0) if random.random() < 0.5 else (1.0, high)
    return float(random.uniform(low, high))
