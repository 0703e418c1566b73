"""Chooses how the intensities of each channel are normalized."""

from collections.abc import Iterator, Sequence

from autoseg.datasets.fingerprint import ChannelFacts, Fingerprint
from autoseg.datasets.hu_windows import Window, describe_windows
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import DatasetError
from autoseg.planning.channel_settings import Normalization, NormalizationScheme

# The scheme by the casefolded name of the channel; any other name means "zscore". Source: nnU-Net's dataset format.
SCHEMES: dict[str, NormalizationScheme] = {
    "ct": "ct",
    "nonorm": "none",
    "zscore": "zscore",
    "rescale_to_0_1": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}

# If cropping keeps less than this fraction of the voxels, z-scores leave out zeros. Source: the reference method
WIDE_BORDER = 0.75


def choose_normalization(fingerprint: Fingerprint, info: DatasetInfo) -> tuple[Normalization, ...]:
    """Chooses a normalization scheme per channel: the windows that dataset.json asks for, else by the channel's name.

    A z-score leaves out voxels that are zero if cropping to the non-zero region keeps less than `WIDE_BORDER` of the
    typical image, as in brain scans without the skull: zeros then mean "no tissue" rather than "dark".

    Source: the reference method (nnU-Net v2.8.1).

    Args:
        fingerprint: Measurements of the training cases.
        info: The content of dataset.json, with the names of the channels.

    Raises:
        DatasetError: The fingerprint holds another number of channels than dataset.json names.
    """
    if len(fingerprint.channels) != info.channels:
        raise DatasetError(
            f"dataset.json names {info.channels} channels, the fingerprint holds {len(fingerprint.channels)}",
            "correct channel_names, or take the fingerprint anew",
        )
    wide_border = fingerprint.median_relative_size_after_crop < WIDE_BORDER
    return tuple(
        _normalization(name, facts, info.windows_of(number), wide_border=wide_border)
        for (number, name), facts in zip(info.channel_names.items(), fingerprint.channels, strict=True)
    )


def explain_normalization(normalization: Sequence[Normalization], info: DatasetInfo) -> Iterator[str]:
    """Yields a sentence per channel on what was chosen and why."""
    for (number, name), channel in zip(info.channel_names.items(), normalization, strict=True):
        is_named = name.casefold() in SCHEMES
        reason = "as its name asks" if is_named else "as for every channel whose name asks for nothing else"
        if channel.window_hu is not None:
            reason = "as dataset.json asks"
        yield f"Channel {number} ({name}): {_describe(channel)}, {reason}."


def _normalization(name: str, facts: ChannelFacts, windows: tuple[Window, ...], *, wide_border: bool) -> Normalization:
    if windows:
        return Normalization(scheme="window", window_hu=windows)
    scheme = SCHEMES.get(name.casefold(), "zscore")
    if scheme == "ct":
        return Normalization(
            scheme=scheme, lower=facts.percentile_00_5, upper=facts.percentile_99_5, mean=facts.mean, std=facts.std
        )
    return Normalization(scheme=scheme, only_nonzero=scheme == "zscore" and wide_border)


def _describe(channel: Normalization) -> str:
    if channel.scheme == "ct":
        return (
            f"intensities are clipped to {channel.lower:.6g} to {channel.upper:.6g}, which holds 99 % of the labelled "
            f"voxels, then shifted by their mean {channel.mean:.6g} and divided by their deviation {channel.std:.6g}"
        )
    if channel.window_hu is not None:
        inputs = "" if channel.channels == 1 else f", which makes {channel.channels} channels of the network"
        each = "" if channel.channels == 1 else "each of "
        return f"{each}{describe_windows(channel.window_hu)} is clipped, and becomes -1 to 1{inputs}"
    if channel.only_nonzero:
        return (
            "each image is shifted and scaled to mean 0 and deviation 1 over its voxels that are not zero, because "
            "wide borders of zeros were cropped"
        )
    return {
        "none": "intensities stay as they are",
        "zscore": "each image is shifted and scaled to mean 0 and deviation 1",
        "rescale_to_0_1": "each image is rescaled to the range 0 to 1",
        "rgb_to_0_1": "intensities are divided by 255",
    }[channel.scheme]
