"""Normalization: the intensities of each channel are brought to a common scale.

Source of all schemes: the reference method (nnU-Net v2.8.1, default normalization schemes).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ImageError
from autoseg.planning.settings import Normalization

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

SMALLEST_DIVISOR = 1e-8  # Source: the reference method. It keeps a constant image at zero instead of NaN.


def normalize(image: Image, schemes: tuple[Normalization, ...], mask: Mask) -> Image:
    """Normalizes each channel by its own scheme.

    A constant channel becomes zero under "zscore" and "rescale_to_0_1", never NaN.

    Args:
        image: Shape (c, z, y, x); it is not changed.
        schemes: One per channel.
        mask: Shape (z, y, x), true in the nonzero region; some z-scores are computed over this region alone.

    Returns:
        A new image of the same shape, float32.

    Raises:
        ImageError: The number of channels differs from the plan's, or a channel for "rgb_to_0_1" holds values outside
            0 to 255.

    Example:
        >>> image = np.array([[[[0, 1, 3]]]], dtype=np.float32)
        >>> mask = image[0] > 0
        >>> normalize(image, (Normalization(scheme="zscore", only_nonzero=True),), mask).tolist()
        [[[[0.0, -1.0, 1.0]]]]
        >>> normalize(image, (Normalization(scheme="rescale_to_0_1"),), mask).round(2).tolist()[0][0][0][2]
        1.0
    """
    if len(image) != len(schemes):
        raise ImageError(
            f"the image has {len(image)} channels, the plan expects {len(schemes)}",
            "give exactly the channels that dataset.json names",
        )
    result = np.empty(image.shape, dtype=np.float32)
    for channel, settings, target in zip(image, schemes, result, strict=True):
        target[...] = _SCHEMES[settings.scheme](channel, settings, mask)
    return result


def _ct(channel: Image, settings: Normalization, _mask: Mask) -> Image:
    measured = (settings.lower, settings.upper, settings.mean, settings.std)
    lower, upper, mean, std = (number for number in measured if number is not None)
    result = np.clip(channel, lower, upper)
    result -= mean
    result /= max(std, SMALLEST_DIVISOR)
    return result


def _zscore(channel: Image, settings: Normalization, mask: Mask) -> Image:
    if not settings.only_nonzero:
        return _standardize(channel)
    result = channel.copy()
    if mask.any():
        result[mask] = _standardize(channel[mask])
    return result


def _standardize(values: Image) -> Image:
    mean, std = (float(statistic(values, dtype=np.float64)) for statistic in (np.mean, np.std))
    result = values - np.float32(mean)
    result /= np.float32(max(std, SMALLEST_DIVISOR))
    return result


def _rescale_to_0_1(channel: Image, _settings: Normalization, _mask: Mask) -> Image:
    result: Image = channel - channel.min()
    result /= max(result.max(), np.float32(SMALLEST_DIVISOR))
    return result


def _rgb_to_0_1(channel: Image, _settings: Normalization, _mask: Mask) -> Image:
    lowest, highest = float(channel.min()), float(channel.max())
    if lowest < 0 or highest > 255:
        raise ImageError(
            f"a colour channel holds values from {lowest:g} to {highest:g}, outside 0 to 255",
            "give colours of 8 bit, or name the channel otherwise in dataset.json to have it z-scored",
        )
    result = channel.copy()
    result /= 255
    return result


def _none(channel: Image, _settings: Normalization, _mask: Mask) -> Image:
    return channel


_SCHEMES: dict[str, Callable[[Image, Normalization, Mask], Image]] = {
    "ct": _ct,
    "zscore": _zscore,
    "rescale_to_0_1": _rescale_to_0_1,
    "rgb_to_0_1": _rgb_to_0_1,
    "none": _none,
}
