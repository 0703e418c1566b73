"""Which pixels of a TIFF are the image: its series of pages, and which axis is slices, channels or colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import ImageError
from autoseg.imaging.foreign_formats import unreadable
from autoseg.imaging.pictures.tiff_codes import (
    ASSOCIATED_ALPHA,
    BLACK_IS_ZERO,
    PALETTE,
    REDUCED,
    RGB,
    TRANSPARENCY_MASK,
    UNASSOCIATED_ALPHA,
    WHITE_IS_ZERO,
    YCBCR,
)

PLANE_AXES = "YXS"
SLICE_AXES = "ZIQ"  # Z is named, I and Q are pages that nothing names
AXIS_NAMES = {"T": "points in time", "C": "channels", "Z": "slices", "S": "colours"}

SUPPORTED_COLOURS = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR)
COLOUR_NAMES = {4: "a mask of transparency", 5: "colours of printing (CMYK)", 8: "colours of CIELAB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The axes of a series, as indices of its shape; None for one that it lacks, or that has a length of 1.

    Points in time stand in the place of channels, as the volumes of a fourth axis do in other formats.
    """

    slices: int | None
    channels: int | None
    is_over_time: bool
    samples: int | None
    rows: int
    columns: int


def choose_series(tiff: Any, path: Path) -> Any:
    """Returns the series of pages that is the image: the only one that is no reduced copy and no transparency.

    A pyramid is one series, whose first level has the full resolution.

    Args:
        tiff: An open `tifffile.TiffFile`.
        path: Its path, for messages.

    Raises:
        ImageError: There is none, or several, such as pages of different sizes, or pages lie in other files.
    """
    series = [one for one in tiff.series if not _is_auxiliary(one)]
    if not series:
        raise unreadable(path)
    if len(series) > 1:
        shapes = list(dict.fromkeys(f"{one.keyframe.imagewidth} x {one.keyframe.imagelength}" for one in series))
        sizes = f"of different sizes ({', '.join(shapes[:4])})" if len(shapes) > 1 else f"of {shapes[0]} pixels"
        raise ImageError(f"{path} holds {len(series)} images {sizes}", "save the one that counts as a file of its own")
    if tiff.is_ome and series[0].kind != "ome":
        raise ImageError(f"{path} is one of several files that hold an OME image together", "save it as one file")
    return series[0]


def find_axes(axes: str, shape: Sequence[int], path: Path, *, pages_are_slices: bool) -> Axes:
    """Finds out which axis of a series is slices, channels or colours.

    Args:
        axes: Letters of the axes, as tifffile names them.
        shape: Lengths of the axes.
        path: Path of the TIFF, for messages.
        pages_are_slices: Whether points in time count as slices, because a spacing file says that this is a volume.

    Raises:
        ImageError: There are several channels at several points in time, or axes that nothing names.

    Example:
        >>> find_axes("ZCYX", (5, 2, 48, 48), Path("a.tif"), pages_are_slices=False)
        Axes(slices=0, channels=1, is_over_time=False, samples=None, rows=2, columns=3)
    """
    long = [index for index, letter in enumerate(axes) if letter not in PLANE_AXES and shape[index] > 1]
    letters = [axes[index] for index in long]
    slices = [index for index in long if axes[index] in SLICE_AXES]
    if "T" in letters and not slices and pages_are_slices:
        slices = [axes.index("T")]
        letters.remove("T")
    is_over_time = "T" in letters
    if is_over_time and "C" in letters:
        what = f"{path} holds {shape[axes.index('C')]} channels at {shape[axes.index('T')]} points in time"
        raise ImageError(what, "save each point in time as a file of its own")
    if len(slices) > 1 or set(letters) - set(SLICE_AXES) - {"C", "T"}:
        arranged = " x ".join(f"{shape[index]} {AXIS_NAMES.get(axes[index], 'pages')}" for index in long)
        what = f"{path}: its pages are arranged as {arranged}, and nothing says which are slices and which channels"
        raise ImageError(what, "save it as an ImageJ or OME stack that names them")
    return Axes(
        slices=slices[0] if slices else None,
        channels=next((axes.index(letter) for letter in "TC" if letter in letters), None),
        is_over_time=is_over_time,
        samples=axes.index("S") if "S" in axes else None,
        rows=axes.index("Y"),
        columns=axes.index("X"),
    )


def count_samples(page: Any, path: Path) -> int:
    """Returns how many samples of a pixel are colours or channels, not transparency.

    Samples that a colour picture has beyond its three colours are left out if they are one, as in all viewers, and
    refused if they are more. Those of a grey picture are channels unless the file calls them transparency.

    Raises:
        ImageError: The colours are of a kind that is not read.
    """
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    if photometric not in SUPPORTED_COLOURS:
        what = f"{path} holds {COLOUR_NAMES.get(photometric, f'colours of the rare kind {photometric}')}"
        raise ImageError(what, "save it as grey or RGB")
    alphas = sum(int(extra) in (ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA) for extra in page.extrasamples)
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        return max(1, samples - alphas)
    colours = 1 if photometric == PALETTE else 3
    if samples < colours or samples - colours > max(1, alphas):
        what = f"{path} has {samples} samples per pixel, of which {colours} are its colours and the others unknown"
        raise ImageError(what, "save each channel as a file or a page of its own")
    return colours


def _is_auxiliary(series: Any) -> bool:
    return bool(int(series.keyframe.subfiletype) & (REDUCED | TRANSPARENCY_MASK))
