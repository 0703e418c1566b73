"""Windows of Hounsfield units, as radiologists look at CT: an interval of intensities that becomes a channel."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

Window = tuple[float, float]
"""Lower and upper end in Hounsfield units."""

CT = "ct"
"""The casefolded name of a channel that holds Hounsfield units."""


def parse_windows(value: object) -> tuple[Window, ...]:
    """Returns windows as a file states them: one window, or a list of windows.

    Example:
        >>> parse_windows([-200, 300])
        ((-200.0, 300.0),)
        >>> parse_windows([[-200, 300], [-1000, 400]])
        ((-200.0, 300.0), (-1000.0, 400.0))

    Raises:
        ValueError: It is something else, a window is reversed or empty, or a window stands twice.
    """
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"give a window such as [-200, 300], or a list of such windows, not {value!r}")
    entries = value if any(isinstance(entry, list | tuple) for entry in value) else [value]
    windows = tuple(_parse_window(entry) for entry in entries)
    for window in windows:
        if windows.count(window) > 1:
            raise ValueError(f"the window {_show(window)} stands twice, which would make two equal channels")
    return windows


def _parse_window(value: object) -> Window:
    if not isinstance(value, list | tuple) or len(value) != 2:
        shown = _show(value) if isinstance(value, list | tuple) else repr(value)
        raise ValueError(f"a window has two ends, such as [-200, 300], not {shown}")
    lower, upper = value
    for end in (lower, upper):
        if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
            raise ValueError(f"the ends of a window are numbers of Hounsfield units, not {end!r}")
    if lower >= upper:
        raise ValueError(f"the lower end of a window comes first and is below the upper one, not {_show(value)}")
    return float(lower), float(upper)


def _show(window: Sequence[object]) -> str:
    ends = (f"{end:g}" if isinstance(end, int | float) and not isinstance(end, bool) else repr(end) for end in window)
    return f"[{', '.join(ends)}]"


def describe_windows(windows: Sequence[Window]) -> str:
    """Returns windows in words.

    Example:
        >>> describe_windows([(-200.0, 300.0), (-1000.0, 400.0)])
        '-200 to 300 and -1000 to 400 HU'
    """
    intervals = [f"{lower:g} to {upper:g}" for lower, upper in windows]
    return f"{' and '.join(filter(None, [', '.join(intervals[:-1]), intervals[-1]]))} HU"


Windows = Annotated[tuple[Window, ...], BeforeValidator(parse_windows)]


class ChannelNormalization(BaseModel):
    """The normalization that dataset.json asks for in a channel of CT.

    Attributes:
        window_hu: A window of Hounsfield units, or several; the network gets a channel for each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_hu: Windows


def assign_to_channel(normalization: object, channel_names: object) -> object:
    """Returns "normalization" of dataset.json by channel number, also where it leaves out the only channel.

    Example:
        >>> assign_to_channel({"window_hu": [-200, 300]}, {"0": "CT"})
        {'0': {'window_hu': [-200, 300]}}

    Raises:
        ValueError: It leaves out the channel although there are several.
    """
    if not isinstance(normalization, Mapping) or "window_hu" not in normalization:
        return normalization
    if isinstance(channel_names, Mapping | list) and len(channel_names) > 1:
        raise ValueError(
            f"'normalization' must say which of the {len(channel_names)} channels has the window, such as "
            '{"0": {"window_hu": [-200, 300]}}'
        )
    return {"0": normalization}


def find_window_problem(channels: Mapping[str, Any], channel_names: Mapping[str, str]) -> str | None:
    """Returns why windows do not suit the channels; None if they do.

    Args:
        channels: Numbers of the channels with windows, as text.
        channel_names: Number of each channel to its name.

    Example:
        >>> find_window_problem({"0": ...}, {"0": "T2"})
        "channel 0 is 'T2', and only a channel named 'CT' holds Hounsfield units, which window_hu needs"
    """
    for number in channels:
        if number not in channel_names:
            return f"there is no channel {number!r}, only {', '.join(channel_names)}"
        if channel_names[number].casefold() != CT:
            return (
                f"channel {number} is {channel_names[number]!r}, and only a channel named 'CT' holds Hounsfield units, "
                "which window_hu needs"
            )
    return None
