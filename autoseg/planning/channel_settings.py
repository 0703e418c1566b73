"""The normalization of a channel in plan.json, and the channels that a network gets."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

from pydantic import ValidationError, model_validator

from autoseg.datasets.hu_windows import Windows, describe_windows
from autoseg.networks.architecture import Architecture, Section

NormalizationScheme = Literal["ct", "window", "zscore", "rescale_to_0_1", "rgb_to_0_1", "none"]

MOST_NEIGHBOURS = 8
"""Most slices on each side that a 2D network sees. Decision: more than 17 slices are a volume, for which 3D is made."""


class Normalization(Section):
    """How the intensities of one channel are normalized.

    Attributes:
        scheme: "ct" clips to [lower, upper], then subtracts `mean` and divides by `std`, all four measured over the
            foreground of the dataset; "window" clips to each of `window_hu`, which becomes -1 to 1; "zscore" subtracts
            the image's own mean and divides by its own standard deviation; "rescale_to_0_1" maps the image's own range
            to 0 to 1; "rgb_to_0_1" divides by 255; "none" leaves values unchanged.
        only_nonzero: Whether "zscore" normalizes over the non-zero region and leaves the other voxels at zero.
        lower, upper, mean, std: The parameters of "ct", in the unit of the image (Hounsfield units).
        window_hu: The windows of "window" in Hounsfield units: one such as [-200, 300], or a list of them, each of
            which becomes a channel of the network. Where it stands, `scheme` may be left out, and `in_channels` of the
            architecture follows from it, except in a cascade, whatever a file says.
    """

    scheme: NormalizationScheme
    only_nonzero: bool = False
    lower: float | None = None
    upper: float | None = None
    mean: float | None = None
    std: float | None = None
    window_hu: Windows | None = None

    @model_validator(mode="before")
    @classmethod
    def _windows_say_the_scheme(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("window_hu") is not None and "scheme" not in fields:
            return {"scheme": "window", **fields}
        return fields

    @model_validator(mode="after")
    def _ct_is_complete(self) -> Self:
        if self.scheme == "ct" and None in (self.lower, self.upper, self.mean, self.std):
            raise ValueError("the scheme 'ct' needs lower, upper, mean and std")
        if (self.scheme == "window") != (self.window_hu is not None):
            raise ValueError(f"window_hu belongs to the scheme 'window', and only to it; the scheme is {self.scheme!r}")
        return self

    @property
    def channels(self) -> int:
        """Number of channels that the network gets of this channel of the scan."""
        return 1 if self.window_hu is None else len(self.window_hu)


def count_inputs(normalization: Sequence[Normalization], neighbouring_slices: int) -> list[int]:
    """Returns the number of channels that the network gets of each channel of a scan."""
    return [channel.channels * (2 * neighbouring_slices + 1) for channel in normalization]


def follow_channels(fields: Any) -> Any:
    """Returns the fields of a configuration with `in_channels` as its windows and neighbouring slices make it.

    In a cascade the segmentation takes channels as well, whose number is not known here; it stays as it is.
    """
    try:
        normalization = [Normalization.model_validate(entry) for entry in fields["normalization"]]
        inputs = sum(count_inputs(normalization, fields.get("neighbouring_slices", 0)))
        architecture = Architecture.model_validate(fields["architecture"])
    except (TypeError, KeyError, ValidationError):
        return fields  # the fields' own validation explains better what is wrong
    if inputs <= len(normalization) or fields.get("previous") is not None:
        return fields
    return {**fields, "architecture": architecture.model_copy(update={"in_channels": inputs})}


def name_inputs(
    channel_names: Sequence[str], normalization: Sequence[Normalization], neighbouring_slices: int = 0
) -> Iterator[str]:
    """Yields a name for each channel that the network gets of a scan, in their order.

    Example:
        >>> list(name_inputs(["CT", "PET"], [Normalization(window_hu=[-200, 300]), Normalization(scheme="zscore")]))
        ['CT -200 to 300 HU', 'PET']
        >>> list(name_inputs(["T2"], [Normalization(scheme="zscore")], neighbouring_slices=1))
        ['T2, slice -1', 'T2', 'T2, slice +1']
    """
    for name, channel in zip(channel_names, normalization, strict=True):
        windows = [(window,) for window in channel.window_hu or ()]
        for title in [f"{name} {describe_windows(window)}" for window in windows] or [name]:
            for offset in range(-neighbouring_slices, neighbouring_slices + 1):
                yield f"{title}, slice {offset:+d}" if offset else title
