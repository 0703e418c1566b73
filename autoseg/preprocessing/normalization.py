"""Normalization: the intensities of each channel are brought to a common scale.

Source of all schemes but "window": the reference method (nnU-Net v2.8.1, default normalization schemes).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.hu_windows import Window
from autoseg.errors import ImageError
from autoseg.planning.channel_settings import Normalization

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

SMALLEST_DIVISOR = 1e-8  # Source: the reference method. It keeps a constant image at zero instead of NaN.


def normalize(
    image: Image, schemes: tuple[Normalization, ...], mask: Mask, missing: tuple[int, ...] | None = None
) -> Image:
    """Normalizes each channel by its own scheme.

    A constant channel becomes zero under "zscore" and "rescale_to_0_1", never NaN, and so does a missing one under
    "ct" and "window"; see `find_missing`.

    Args:
        image: Shape (c, z, y, x); it is not changed.
        schemes: One per channel; a channel with several windows makes several channels.
        mask: Shape (z, y, x), true in the nonzero region; some z-scores are computed over this region alone.
        missing: Channels that the image lacks, if `find_missing` has looked for them already.

    Returns:
        A new image of shape (m, z, y, x), float32, where m counts each window as a channel of its own.

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
    result = np.empty((sum(settings.channels for settings in schemes), *image.shape[1:]), dtype=np.float32)
    missing, first = find_missing(image, schemes) if missing is None else missing, 0
    for number, (channel, settings) in enumerate(zip(image, schemes, strict=True)):
        normalized = result[first : first + settings.channels]
        first += settings.channels
        if number in missing:
            normalized[:] = 0
        elif settings.window_hu is not None:
            _apply_windows(channel, settings.window_hu, normalized)
        else:
            _SCHEMES[settings.scheme](channel, settings, mask, normalized[0])
    return result


def find_missing(image: Image, schemes: tuple[Normalization, ...]) -> tuple[int, ...]:
    """Returns the channels that a scan lacks: those that hold the same value everywhere, if another one does not.

    Colours are never missing. Missing channels become 0, as the mean of other channels does.

    Args:
        image: Shape (c, z, y, x).
        schemes: Normalization of each channel.

    Raises:
        ImageError: The number of channels differs from the plan's.

    Example:
        >>> image = np.array([[[[0, 1, 3]]], [[[0, 0, 0]]]], dtype=np.float32)
        >>> find_missing(image, (Normalization(scheme="zscore"), Normalization(scheme="zscore")))
        (1,)
        >>> find_missing(image[1:], (Normalization(scheme="zscore"),))
        ()
    """
    if len(image) != len(schemes):
        raise ImageError(
            f"the image has {len(image)} channels, the plan expects {len(schemes)}",
            "give exactly the channels that dataset.json names",
        )
    constant = [_is_constant(channel) for channel in image]
    if all(constant):
        return ()
    kinds = zip(constant, schemes, strict=True)
    return tuple(number for number, (same, scheme) in enumerate(kinds) if same and scheme.scheme != "rgb_to_0_1")


def _is_constant(channel: Image) -> bool:
    """Returns whether all voxels have the same value; it mostly looks at one plane."""
    return all(bool((plane == channel.flat[0]).all()) for plane in channel)


def _apply_windows(channel: Image, windows: Sequence[Window], result: Image) -> None:
    """Writes each window (lower, upper) of a channel (z, y, x) into `result` (windows, z, y, x), as -1 to 1.

    Decision: the middle of a window becomes 0, as the mean does under "ct", since patches that reach beyond a scan are
    filled with 0 there.
    """
    for number, (lower, upper) in enumerate(windows):
        np.clip(channel, lower, upper, out=result[number])
        result[number] -= (lower + upper) / 2
        result[number] /= (upper - lower) / 2


def _ct(channel: Image, settings: Normalization, _mask: Mask, result: Image) -> None:
    measured = (settings.lower, settings.upper, settings.mean, settings.std)
    lower, upper, mean, std = (number for number in measured if number is not None)
    np.clip(channel, lower, upper, out=result)
    result -= mean
    result /= max(std, SMALLEST_DIVISOR)


def _zscore(channel: Image, settings: Normalization, mask: Mask, result: Image) -> None:
    if not settings.only_nonzero:
        _standardize(channel, result)
        return
    result[:] = channel
    if mask.any():
        inside = channel[mask]
        _standardize(inside, inside)
        result[mask] = inside


def _standardize(values: Image, result: Image) -> None:
    mean, std = (float(statistic(values, dtype=np.float64)) for statistic in (np.mean, np.std))
    np.subtract(values, np.float32(mean), out=result)
    result /= np.float32(max(std, SMALLEST_DIVISOR))


def _rescale_to_0_1(channel: Image, _settings: Normalization, _mask: Mask, result: Image) -> None:
    np.subtract(channel, channel.min(), out=result)
    result /= max(result.max(), np.float32(SMALLEST_DIVISOR))


def _rgb_to_0_1(channel: Image, _settings: Normalization, _mask: Mask, result: Image) -> None:
    lowest, highest = float(channel.min()), float(channel.max())
    if lowest < 0 or highest > 255:
        raise ImageError(
            f"a colour channel holds values from {lowest:g} to {highest:g}, outside 0 to 255",
            "give colours of 8 bit, or name the channel otherwise in dataset.json to have it z-scored",
        )
    np.divide(channel, np.float32(255), out=result)


def _none(channel: Image, _settings: Normalization, _mask: Mask, result: Image) -> None:
    result[:] = channel


_SCHEMES: dict[str, Callable[[Image, Normalization, Mask, Image], None]] = {
    "ct": _ct,
    "zscore": _zscore,
    "rescale_to_0_1": _rescale_to_0_1,
    "rgb_to_0_1": _rgb_to_0_1,
    "none": _none,
}
"""Each writes a channel (z, y, x) into a result of its shape."""
